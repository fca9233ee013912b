"""The queries and items of a batch, each once, as a student and a teacher see them: what embedding methods compare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..batches.collators import UNLABELLED
from ..functional.distinct import first_of_each
from ..recommenders.recommender import RecommenderModel, RecommenderOutput


class Taught(NamedTuple):
    """Entities about which a teacher says something."""

    rows: Tensor  # (n,) their rows in the teacher's table
    student: Tensor  # (n, D), at least float32
    teacher: Tensor  # (n, d) of the same dtype
    share: Tensor  # (n,) weight of each in a sum over entities

    def sample(self, most: int | None) -> Taught:
        """At most `most` of them, drawn without replacement; shares grow so that sums over entities stay unbiased."""
        drawn, scale = _draw(len(self.rows), most, self.rows.device)
        rows, student, teacher, share = (part[drawn] for part in self)
        return Taught(rows, student, teacher, share * scale)


class Entities(NamedTuple):
    """Entities of one kind, with the student's vectors."""

    rows: Tensor  # (n,) of a query: its place in the batch; of an item: its id
    vectors: Tensor  # (n, D)
    share: Tensor  # (n,)

    def taught(self, table: Tensor) -> Taught:
        """Beside the teacher's `table (rows, d)`; entities with a row of zeros, which say nothing, are left out."""
        dtype = torch.promote_types(self.vectors.dtype, torch.float32)
        teacher = table.index_select(0, self.rows).to(dtype)
        every = Taught(self.rows, self.vectors.to(dtype), teacher, self.share.to(dtype))
        known = teacher.abs().amax(dim=1).nonzero().squeeze(1)  # `any` takes several times as long
        return every if len(known) == len(teacher) else Taught(*(part.index_select(0, known) for part in every))


def distinct_queries(batch: Mapping[str, Tensor], output: RecommenderOutput, *, most: int | None = None) -> Entities:
    """Every query of the batch once, with share 1; or `most` of them, drawn, with shares that keep sums unbiased."""
    rows = first_of_each(batch["query_ids"])
    drawn, scale = _draw(len(rows), most, rows.device)
    vectors = output.query_embeddings[rows[drawn]]
    return Entities(rows[drawn], vectors, vectors.new_full((len(vectors),), scale))


def distinct_items(
    student: RecommenderModel, batch: Mapping[str, Tensor], *, sides: bool = False, most: int | None = None
) -> Entities:
    """Every labelled or negative item of the batch once, with share 1; or `most` of them, as of queries.

    Args:
        sides: positives and negatives as sets of their own, at share 1/2 each, as in the authors' code of DE: an item
            of both comes twice. Without negatives in the batch, positives have share 1.
    """
    labelled = batch["targets"][batch["targets"] != UNLABELLED]
    negatives = batch["negatives"].flatten() if "negatives" in batch else labelled[:0]
    two = sides and len(negatives) > 0
    sets = [labelled.unique(), negatives.unique()] if two else [torch.cat([labelled, negatives]).unique()]
    items = torch.cat(sets)
    drawn, scale = _draw(len(items), most, items.device)
    vectors = student.item_embeddings(items[drawn])
    return Entities(items[drawn], vectors, vectors.new_full((len(vectors),), scale / len(sets)))


def _draw(count: int, most: int | None, device: torch.device) -> tuple[Tensor | slice, float]:
    """Which of `count` to take, and by how much a sum over them falls short of the sum over all."""
    if most is None or count <= most:
        return slice(None), 1.0
    return torch.randperm(count, device=device)[:most], count / most

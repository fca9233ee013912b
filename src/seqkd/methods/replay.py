"""Proxy-guided and student-informed replay (CCD: continual collaborative distillation, KDD'24, arXiv 2405.19046).

A model that learns a new block of a stream forgets old ones, whose data are gone. Older models of it are still there,
its proxies: what they rank high and the model ranks low by now is rehearsed, with their scores as soft labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

import torch
from torch import Tensor

from ..batches.collators import SequenceDataset
from ..errors import ConfigError, KnowledgeError
from ..functional.distinct import first_of_each, spread
from ..functional.list_ranks import ranks_in
from ..functional.soft_bce import soft_bce
from ..knowledge import Knowledge
from ..method import Epoch, Method
from ..recommenders.recommender import RecommenderModel, RecommenderOutput
from ..teaching.list_checks import require_training_queries
from ..teaching.rehearsal import Rehearsal
from ..teaching.replayed_pairs import Ranks, ReplayedPairs, ReplayedPairsConfig


@dataclass(frozen=True)
class ReplayConfig(ReplayedPairsConfig):
    """The release's values for a student, whose `reference` there is "start"; for a teacher its `decay` is 5.

    Its loss is 0.5 exp(-e / decay) times a sum over pairs beside a sum over labels, in steps of their own. Here both
    are means and share their steps: the method's weight is 0.5 times replayed pairs / labels of an epoch (0.93 for 5
    pairs of each of 12,248 old users beside the 33,032 labels of Yelp's first block).
    """

    decay: float | None = 10.0  # epochs in which the weight falls to 1/e of what it was; None keeps it

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay is not None and not self.decay > 0:
            raise ConfigError(f"decay must be above 0, or null to keep the weight, got {self.decay}.")


class Replay(Method):
    """Binary cross-entropy between `sigma(proxy score)` and `sigma(S)` of the replayed pairs, a mean over pairs.

    It teaches a student by its proxies, and a teacher by these and the updated student, just the same. Knowledge of
    each: `query_topk` with its scores about the rows to rehearse, exported with `filter_seen=True` on rows that hold
    all items that shall not be drawn (the training items of this block and the last). The release leaves the student's
    unmasked when a teacher is updated, so that what users have is rehearsed, too, and drops the last pair of an epoch.

    Args:
        rows: what is rehearsed, at the tail query of each; every epoch goes through them once, in equal parts for all
            its steps. Without rows, the queries of training themselves are; W is then known to the depth of
            `list_length`, without what a query's history holds: what stands deeper counts as standing there.

    A drawing ranks the catalogue for every row: 2.5 s of one core for 12,000 rows and 11,000 items. Memory: 8 bytes for
    each draw of a row.
    """

    config_class = ReplayConfig
    config: ReplayConfig
    paper = "arXiv:2405.19046"
    pairs: ReplayedPairs

    def __init__(self, config: ReplayConfig | None = None, rows: SequenceDataset | None = None) -> None:
        super().__init__(config)
        self.rows = rows
        self.rehearsal: Rehearsal | None = None
        self.scale = 0.0  # lambda_e / pairs of a row

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"query_topk", "query_scores"})

    @property
    def reads(self) -> frozenset[str]:
        return frozenset()  # pairs are drawn when an epoch begins

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        asked = {proxy: said.num_queries for proxy, said in knowledge.items()}
        queries = torch.arange(next(iter(asked.values())))
        if self.rows is not None:
            self.rehearsal = Rehearsal(student, self.rows)
            queries = self.rehearsal.query_ids
        expected = len(queries) if self.rows is None else self.rows.num_queries
        if set(asked.values()) != {expected}:
            raise KnowledgeError(f"{expected} queries are to be rehearsed, but the proxies answer {asked}.")
        self.pairs = ReplayedPairs(self.config, knowledge, queries)

    def on_epoch_begin(self, epoch: Epoch) -> None:
        if self.rehearsal is not None:
            self.rehearsal.begin(epoch)
            ranks = self.rehearsal.ranks
            self.pairs.draw(epoch, lambda: ranks)
        else:
            require_training_queries({"the proxies": len(self.pairs.items)}, epoch.positives)
            self.pairs.draw(epoch, lambda: ranks_among_best(epoch.student_topk(self.config.list_length).cpu()))
        self.scale = annealed(epoch.number, self.config.decay) / self.pairs.per_row()

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor:
        if self.rehearsal is not None:
            rows = self.rehearsal.window(batch["progress"])
            pairs = self.pairs.of(rows)
            scores = student.score(self.rehearsal.ask(rows), pairs.items)
            return self.scale * soft_bce(scores, pairs.labels, pairs.items == 0).mean()
        first = first_of_each(batch["query_ids"])
        pairs = self.pairs.of(batch["query_ids"][first])
        scores = student.score(output.query_embeddings[first], pairs.items)
        return spread(self.scale * soft_bce(scores, pairs.labels, pairs.items == 0), first, batch)


def annealed(epoch: int, decay: float | None) -> float:
    """`exp(-e / decay)`, e from 0."""
    return 1.0 if decay is None else exp(-epoch / decay)


def ranks_among_best(best: Tensor) -> Ranks:
    """Ranks by the student's best k items of each row, `(R, k)`; k for any other item."""
    return lambda rows, items: ranks_in(best[rows], items)

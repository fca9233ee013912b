"""A student that is a table of users and one of items, two teachers and a batch: what the embedding methods read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqkd.batches.collators import UNLABELLED
from seqkd.catalogue import Catalogue
from seqkd.knowledge import Knowledge
from seqkd.knowledge.store.source import Source
from seqkd.recommenders.recommender import RecommenderOutput

QUERIES, ITEMS, STUDENT, TEACHER = 8, 9, 3, 5


class Tables(nn.Module):
    """The part of a recommender that the embedding methods use."""

    embedding_size = STUDENT

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(QUERIES, STUDENT))
        self.items = nn.Parameter(torch.randn(ITEMS + 1, STUDENT))

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        return self.items if item_ids is None else self.items[item_ids]


def knowledge(seed: int = 1, width: int = TEACHER, item_width: int | None = None) -> Knowledge:
    draw = torch.Generator().manual_seed(seed)
    tables = {
        "query_embeddings": torch.randn(QUERIES, width, generator=draw).half(),
        "item_embeddings": torch.randn(ITEMS + 1, item_width or width, generator=draw).half(),
    }
    tables["item_embeddings"][0] = 0
    source = Source("teacher", "r", "s", "train")
    return Knowledge.from_tables(tables, source=source, catalogue=Catalogue(f"i{n}" for n in range(1, ITEMS + 1)))


def pairs(negatives: bool = True) -> dict[str, Tensor]:
    """Six queries, two of them the same, one without a label: distinct are queries 1, 2, 4, 5, 7 and items 3, 6, 8."""
    batch = {
        "query_ids": torch.tensor([5, 2, 5, 7, 1, 4]),
        "targets": torch.tensor([3, 8, 6, 3, UNLABELLED, 8]),
    }
    if negatives:
        batch["negatives"] = torch.tensor([[6, 1], [9, 1], [2, 9], [6, 6], [1, 2], [2, 9]])
    return batch


def asked(student: Tables, batch: dict[str, Tensor]) -> RecommenderOutput:
    return RecommenderOutput(query_embeddings=student.queries[batch["query_ids"]])


def read(teachers: dict[str, Knowledge], batch: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """As the distiller hands it over."""
    return {
        name: {
            "query_embeddings": said.rows("query_embeddings", batch["query_ids"]),
            "item_embeddings": said.table("item_embeddings"),
        }
        for name, said in teachers.items()
    }


def answer(method, student: Tables, batch: dict[str, Tensor], teachers: dict[str, Knowledge]) -> Tensor:
    return method(student, batch, asked(student, batch), read(teachers, batch))

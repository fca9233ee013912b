"""Epochs that begin with a student to look at."""

from __future__ import annotations

import torch

from seqkd.batches.positives import Positives
from seqkd.data.split import Split
from seqkd.knowledge.interview import best_items
from seqkd.method import Epoch, Method
from seqkd.recommenders.recommender import RecommenderModel

from .tiny_rankings import dataset


def begin(method: Method, student: RecommenderModel, split: Split, number: int = 0) -> None:
    sequences = dataset(split)
    generator = torch.Generator().manual_seed(number)
    epoch = Epoch(number, 10, generator, Positives(sequences), lambda k: best_items(student, sequences, k))
    method.on_epoch_begin(epoch)


def ranking_of(student: RecommenderModel, split: Split, query: int) -> list[int]:
    """All items that the query's user lacks, best first, from the tables of MF."""
    scores = (student.item_embedding.weight @ student.user_embedding.weight[query + 1]).tolist()
    history = split.train["item_ids"][query]
    return sorted((item for item in range(1, 21) if item not in history), key=lambda item: -scores[item])

"""The data of HetComp and ConCF: 60/20/20 of each user at random, evaluated as sets over the whole catalogue.

    data = HetCompData.load("citeulike")      # or "ml100k"
    model.set_users(data.split.users); trainer = DistillationTrainer(..., data.train, data.valid)

CiteULike: all interactions of `../shared/data/citeulike`, users with 5 at least. ML-100K: all ratings, as implicit
feedback. One draw (seed 0) for all teachers and students. Ranked is the whole catalogue without training items and, in
test, without validation items. (Validation ranks the items of test along: what is in test may not help to choose.)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from torch import Tensor

from seqkd import SequenceDataset, Split, TargetSets, load_interactions, ratio_split
from seqkd.evaluation.metrics import ranks_from_topk, set_metrics

FILES = {
    "citeulike": Path("../shared/data/citeulike/derrd_split.parquet"),  # its column `split` is not read
    "ml100k": Path("../shared/data/ml_100k/interactions.parquet"),
}
KS = (10, 50)
AT_LEAST = 5  # interactions of a user
PROTOCOL = "random 60/20/20 of each user (seed 0), sets, full catalogue, masked"


@dataclass(frozen=True)
class HetCompData:
    """The split and its three parts over `split.users`."""

    name: str
    split: Split
    train: SequenceDataset
    valid: TargetSets
    test: TargetSets

    @classmethod
    def load(cls, name: str, *, of_user: int = AT_LEAST, of_item: int = 0) -> HetCompData:
        """Of users and of items with at least so many interactions, counted once, before any is left out."""
        table = pq.read_table(FILES[name], columns=["user_id", "item_id"])
        # in the order of ids: with no times, the draw should depend on the pairs alone
        table = table.sort_by([("user_id", "ascending"), ("item_id", "ascending")])
        enough = np.ones(len(table), dtype=bool)
        for column, least in (("user_id", of_user), ("item_id", of_item)):
            _, code, count = np.unique(table[column].to_numpy(), return_inverse=True, return_counts=True)
            enough &= count[code] >= least
        table = table.filter(enough).combine_chunks()
        market = load_interactions(Dataset(table), domain=name, columns={"timestamp": None})
        split = ratio_split(market, ratios=(0.6, 0.2, 0.2), seed=0)
        items, users = len(split.catalogue), split.users
        return cls(
            name,
            split,
            SequenceDataset(split.train, items, users),
            TargetSets(split.valid, items, users),
            TargetSets(split.test, items, users),
        )


def metrics_of_lists(lists: Tensor, rows: TargetSets) -> dict[str, float]:
    """Recall and NDCG of lists by query id `(N, k)`, best first, such as an ensemble has and no model."""
    query_ids = torch.from_numpy(rows.query_start.copy())
    targets, owner = rows.targets_of(query_ids)
    ranks = ranks_from_topk(lists[query_ids].long()[owner], torch.from_numpy(targets)).numpy()
    cells = (int(rows.sizes.max()) + 1, lists.shape[1] + 1)
    counts = np.bincount(rows.sizes[owner] * cells[1] + ranks, minlength=cells[0] * cells[1])
    return set_metrics(torch.from_numpy(counts.reshape(cells)), KS)

"""A set-based split, a student that knows its users, and teachers' rankings at random: what ranking methods read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from seqkd.batches.collators import SequenceDataset
from seqkd.batches.pairs import PairCollator, TrainingPairs
from seqkd.batches.positives import Positives
from seqkd.data.split import Split
from seqkd.distiller import Distiller
from seqkd.knowledge import Knowledge
from seqkd.knowledge.store.source import Source
from seqkd.method import Epoch, Method
from seqkd.models.mf import MFConfig, MFModel

from ..tiny import ITEMS, USERS, nobody, rows_of, tiny_split


def set_split() -> Split:
    """`tiny_split`, but each user of training is asked once, for the set of his items."""
    split = tiny_split()
    rows = split.train.to_dict()
    train = rows_of(rows["item_ids"], False).to_dict()
    train |= {"first_target": [len(items) for items in rows["item_ids"]], "query_start": [*range(USERS)]}
    features = split.train.features
    return Split(
        split.catalogue, type(split.train).from_dict(train, features=features), split.valid, split.test, "loo", "tiny"
    )


def mf(split: Split, seed: int = 0, **config) -> MFModel:
    torch.manual_seed(seed)
    settings = {"num_items": ITEMS, "num_users": USERS, "hidden_size": 4, "initializer_range": 0.5}
    model = MFModel(MFConfig(**{**settings, **config}))
    model.set_catalogue(split.catalogue)
    model.set_users(split.users)
    return model


def dataset(split: Split) -> SequenceDataset:
    return SequenceDataset(split.train, ITEMS, split.users)


def rankings(split: Split, seed: int = 0, length: int = 6) -> Knowledge:
    """Rankings of items and of users that leave out what is had, and the tables by which a teacher scores."""
    draw, positives = torch.Generator().manual_seed(seed), Positives(dataset(split))
    users, items = torch.arange(1, USERS + 1), torch.arange(1, ITEMS + 1)
    vectors = torch.randn(USERS, 3, generator=draw), torch.randn(ITEMS + 1, 3, generator=draw)
    scores = vectors[0] @ vectors[1][1:].T  # (U, I)
    had = positives.of_users(users[:, None], items)
    best = scores.masked_fill(had, -torch.inf).topk(length, dim=1)
    fans = scores.masked_fill(had, -torch.inf).T.topk(length, dim=1).indices + 1
    tables = {
        "query_topk": (best.indices + 1).int(),
        "query_scores": best.values,
        "query_embeddings": vectors[0],
        "item_embeddings": vectors[1],
        "item_topk": torch.cat([torch.zeros(1, length), fans]).int(),
    }
    source = Source(f"teacher{seed}", "r", split.fingerprint, "train", "dot", 1.0, {})
    return Knowledge.from_tables(tables, source=source, catalogue=split.catalogue)


def of_others(said: Knowledge, rows: int) -> Knowledge:
    """The same items, but as many queries."""
    tables = {name: said.table(name) for name in said.tables}
    tables |= {name: t[torch.arange(rows) % len(t)] for name, t in tables.items() if name.startswith("query_")}
    return Knowledge.from_tables(tables, source=said.source, catalogue=said.catalogue)


def unfiltered(said: Knowledge) -> Knowledge:
    """As `export` makes it by default."""
    return Knowledge(replace(said.source, options={"filter_seen": False}), said.catalogue, said.tables)


def batch_of(split: Split, pairs: list[int], distiller: Distiller) -> dict[str, Tensor]:
    rows = TrainingPairs(dataset(split)).__getitems__(pairs)
    return distiller.look_up(PairCollator(num_negatives=1)(rows))


def begin(method: Method, split: Split, number: int = 0, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(1000 * seed + number)
    method.on_epoch_begin(Epoch(number, 10, generator, Positives(dataset(split)), nobody))


def slow_relaxed_ranking(interesting: np.ndarray, uninteresting: np.ndarray) -> float:
    """CIKM'20, eq. 8, word for word: minus the log of a product of shares."""
    log_probability = 0.0
    for k in range(len(interesting)):
        others = np.concatenate([interesting[k:], uninteresting])
        highest = others.max()
        log_probability += interesting[k] - highest - np.log(np.exp(others - highest).sum())
    return -log_probability


def tensor(values) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def near(actual: Tensor, expected) -> None:
    torch.testing.assert_close(actual.detach(), torch.as_tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-11)

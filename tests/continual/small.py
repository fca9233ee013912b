"""Streams that a test can go through: users who like one of three kinds of items, and more of both as time goes on."""

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow as pa
from datasets import Dataset

from seqkd.continual.configuration import ContinualConfig
from seqkd.data.interactions import load_interactions
from seqkd.data.stream import Block
from seqkd.data.stream_cut import cut_stream

TRAINING = {"learning_rate": 0.05, "num_train_epochs": 4, "per_device_train_batch_size": 64, "use_cpu": True}
FIT = {"training": TRAINING, "every": 2}


def market(seed: int = 0, users: int = 40, items: int = 36, events: int = 900):
    draw = np.random.default_rng(seed)
    time = np.arange(events)
    open_users, open_items = users * (0.6 + 0.4 * time / events), items * (0.6 + 0.4 * time / events)
    user = (draw.random(events) * open_users).astype(int)
    item = (draw.random(events) * open_items / 3).astype(int) * 3 + user % 3
    names = {"user_id": [f"u{u}" for u in user], "item_id": [f"i{i}" for i in item], "timestamp": time}
    return load_interactions(Dataset(pa.table(names)), domain="shop")


@cache
def stream(queries: str = "users", blocks: int = 2) -> tuple[Block, ...]:
    split = "random" if queries == "users" else "temporal"
    return tuple(cut_stream(market(), blocks=blocks, split=split, queries=queries, max_length=20))


def config(**changes) -> ContinualConfig:
    """MF learns from LightGCN."""
    lists = {"interesting": 4, "uninteresting": 4, "item_interesting": 4, "item_uninteresting": 4, "list_length": 10}
    replay = {"methods": {"replay": {"draws": 2, "list_length": 8}}, "weights": {"replay": 0.5}}
    values = {
        "student": {"type": "mf", "model": {"hidden_size": 8}},
        "teachers": {"lightgcn": {"type": "lightgcn", "model": {"hidden_size": 8, "num_layers": 2}}},
        "base": FIT,
        "generate": {**FIT, "methods": {"ir_rrd": lists}, "weights": {"ir_rrd": 0.01}},
        "update_student": {**FIT, **replay},
        "update_teacher": {**FIT, **replay},
        "rehearsed": 8,
        "list_length": 10,
        "metric": "recall@5",
        "cutoffs": [5, 10],
    }
    return ContinualConfig.of({**values, **changes})

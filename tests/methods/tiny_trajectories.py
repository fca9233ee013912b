"""Teachers' trajectories at random: what HetComp reads."""

from __future__ import annotations

import torch

from seqkd.knowledge import Knowledge

from ..tiny import USERS
from .tiny_rankings import dataset, rankings, set_split

SPLIT = set_split()
HAS = {user: set(dataset(SPLIT)[user].item_ids.tolist()) for user in range(USERS)}


def moment(seed: int, length: int = 6) -> Knowledge:
    """Rankings at random of what a user has not, and of what he has."""
    said = rankings(SPLIT, seed, length)
    draw = torch.Generator().manual_seed(seed)
    seen = torch.zeros(USERS, 3, dtype=torch.int32)
    for user, has in HAS.items():
        order = torch.tensor(sorted(has))[torch.randperm(len(has), generator=draw)[:3]]
        seen[user, : len(order)] = order.int()
    tables = {name: said.table(name) for name in ("query_topk", "query_scores")}
    return Knowledge.from_tables({**tables, "query_seen_topk": seen}, source=said.source, catalogue=said.catalogue)


def trajectories(teachers: int = 2, moments: int = 3) -> dict[str, Knowledge]:
    return {f"t{t}@{number}": moment(10 * t + number) for t in range(teachers) for number in range(moments)}

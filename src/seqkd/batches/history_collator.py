"""Rows of a split -> one history per query, for models that read each history afresh."""

from __future__ import annotations

from collections.abc import Sequence as List

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from .collators import UNLABELLED, Sequence, ranges


class HistoryCollator:
    """Asks the queries that `QueryCollator` asks, but each brings a history of its own: its newest `max_items` items.

    Args:
        max_items: items read of a history.
        tail: also ask the unlabelled query after the last item.
        seen: add `seen_query (S,)` and `seen_items (S,)`, the whole history of every query as pairs.
        sample_one: for training: one labelled query of each row; `tail` is ignored. Which one depends on `seed`,
            `epoch` and the row alone, so a run that is resumed, wherever it stopped, asks what it would have asked.
        known_users: refuse unknown users, for models that answer by user alone. A known user may have no history.
        newest_half: with `sample_one`, draw from the newest half of the row: its targets from position (n-1)//2 on.

    Returns (call):
        `histories (Q, n)`, the newest item first, 0 padded; `user_ids` (0 where unknown), `targets`, `query_ids`,
        `history_lengths` `(Q,)`; int64.
    """

    def __init__(
        self,
        max_items: int,
        *,
        tail: bool = False,
        seen: bool = False,
        sample_one: bool = False,
        newest_half: bool = False,
        known_users: bool = False,
    ) -> None:
        self.max_items, self.tail, self.seen = max_items, tail, seen
        self.sample_one, self.newest_half, self.known_users = sample_one, newest_half, known_users
        self.seed = self.epoch = 0  # the trainer sets them

    def __call__(self, sequences: List[Sequence]) -> dict[str, Tensor]:
        sizes = np.array([len(s.item_ids) for s in sequences], dtype=np.int64)
        items = np.concatenate([s.item_ids for s in sequences] or [np.zeros(0, np.int64)])
        base = np.cumsum(sizes) - sizes  # where each row begins
        if self.known_users and any(s.user == 0 for s in sequences):
            raise DataError(
                "a user of these rows is unknown to a model that answers for known users only: he is not in the "
                "training part, or the rows were not given users=split.users. Give them, and leave other users out, or "
                "take a model that reads histories (LightGCN, FM, SASRec)."
            )
        first = np.array([max(s.first_target, s.user == 0) for s in sequences], dtype=np.int64)
        asked = np.maximum(sizes + (self.tail and not self.sample_one) - first, 0)
        if self.sample_one:
            if self.newest_half:
                first = np.maximum(first, (sizes - 1) // 2)
                asked = np.maximum(sizes - first, 0)
            owner = np.flatnonzero(asked)
            draws = (
                np.random.default_rng((self.seed, self.epoch, sequences[row].query_start)) for row in owner.tolist()
            )
            drawn = [draw.integers(count) for draw, count in zip(draws, asked[owner], strict=True)]
            position = first[owner] + np.array(drawn, dtype=np.int64)
        else:
            owner = np.repeat(np.arange(len(sequences)), asked)
            position = first[owner] + ranges(asked)

        read = np.minimum(position, self.max_items)
        row, age = np.repeat(np.arange(len(owner)), read), ranges(read)  # age 0: the newest
        histories = np.zeros((len(owner), max(int(read.max(initial=0)), 1)), dtype=np.int64)
        histories[row, age] = items[(base[owner] + position - 1)[row] - age]
        known = position < sizes[owner]
        targets = np.full(len(owner), UNLABELLED, dtype=np.int64)
        targets[known] = items[(base[owner] + position)[known]]
        query_start = np.array([s.query_start - s.first_target for s in sequences], dtype=np.int64)
        out = {
            "histories": histories,
            "user_ids": np.array([s.user for s in sequences], dtype=np.int64)[owner],
            "targets": targets,
            "query_ids": query_start[owner] + position,
            "history_lengths": position,
        }
        if self.seen:
            out["seen_query"] = np.repeat(np.arange(len(owner)), position)
            out["seen_items"] = items[np.repeat(base[owner], position) + ranges(position)].astype(np.int64)
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in out.items()}

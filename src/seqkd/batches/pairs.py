"""Training by pairs of user and item, for models that know users and so answer one query at a time.

A row of a split becomes its targets, one by one. Items that have no query of their own, the first of a history and all
of a set, belong to the query of their row's end: for a model that knows users it asks the same.
"""

from __future__ import annotations

from collections.abc import Sequence as List
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .collators import UNLABELLED, SequenceDataset, ranges
from .positives import Positives


class TrainingPairs(Dataset):
    """Every interaction of a training part once, in the order of its rows; and every row without any, as its user's
    query that has no label but may have a teacher.

    Attributes:
        users, targets, query_ids: `(N,)`, one of each pair.
        row, end: `(N,)`, where its history is: the first `end` items of the row; of a set, all but the target.
        in_set: `(N,)`, true where the row asks for a set.
    """

    def __init__(self, sequences: SequenceDataset) -> None:
        self.sequences, self.positives = sequences, Positives(sequences)
        lengths, first = np.diff(sequences.offsets), sequences.first_target.astype(np.int64)
        start = sequences.new_from
        count = np.where(lengths == 0, 1, lengths - start)
        self.row = np.repeat(np.arange(len(sequences)), count)
        position = start[self.row] + ranges(count)
        self.in_set = (first == lengths)[self.row]
        self.end = np.where(self.in_set, lengths[self.row], position)
        self.users = sequences.user[self.row]
        labelled = lengths[self.row] > 0
        self.targets = np.full(len(self.row), UNLABELLED, dtype=np.int64)
        self.targets[labelled] = sequences.values[(sequences.offsets[:-1][self.row] + position)[labelled]]
        asked = np.where(position >= first[self.row], position, lengths[self.row])
        self.query_ids = sequences.query_start[self.row] + asked - first[self.row]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> ChosenPairs:
        return self.__getitems__([index])

    def __getitems__(self, indices: List[int]) -> ChosenPairs:
        """A whole batch at once: a Python object per pair would cost more than the model."""
        return ChosenPairs(self, np.asarray(indices, dtype=np.int64))

    def asked(self, tail: bool) -> tuple[np.ndarray, np.ndarray]:
        """Query id of every pair, and 1."""
        return self.query_ids, np.ones(len(self), dtype=np.int64)

    def histories(self, index: np.ndarray, window: int) -> np.ndarray:
        """The newest `window` items before each pair, `(Q, <= window)`, newest first, 0 padded."""
        read = np.minimum(self.end[index], window)
        row, age = np.repeat(np.arange(len(index)), read), ranges(read)
        items = self.sequences.values[self.sequences.offsets[self.row[index]][row] + self.end[index][row] - 1 - age]
        histories = np.zeros((len(index), max(int(read.max(initial=0)), 1)), dtype=np.int64)
        histories[row, age] = items
        histories[self.in_set[index][:, None] & (histories == self.targets[index][:, None])] = 0
        return histories


class ChosenPairs(NamedTuple):
    """Some pairs, by index."""

    pairs: TrainingPairs
    chosen: np.ndarray


class PairCollator:
    """Lays out pairs, each with negatives of its own: items that its user has not.

    What is drawn depends on the pair, the seed and the epoch, so it is the same however a step is carried, and new in
    every epoch (the trainer sets `seed` and `epoch`).

    Args:
        num_negatives: N; 0 draws none.
        window: newest items of the history to bring along; 0 brings none.

    Returns (call):
        `user_ids`, `targets`, `query_ids`, `history_lengths` `(Q,)`; `negatives (Q, N)`; `histories (Q, n)`, newest
        first, 0 padded; int64.
    """

    def __init__(self, *, num_negatives: int = 0, window: int = 0) -> None:
        self.num_negatives, self.window = num_negatives, window
        self.seed = self.epoch = 0

    def __call__(self, rows: ChosenPairs) -> dict[str, Tensor]:
        pairs, index = rows
        out = {
            "user_ids": pairs.users[index],
            "targets": pairs.targets[index],
            "query_ids": pairs.query_ids[index],
            "history_lengths": pairs.end[index],
        }
        if self.window:
            out["histories"] = pairs.histories(index, self.window)
        if self.num_negatives:
            out["negatives"] = self._negatives(pairs, index)
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in out.items()}

    def _negatives(self, pairs: TrainingPairs, index: np.ndarray) -> np.ndarray:
        """`(Q, N)` uniform over the items that the user has not; drawn again where he has, at last from these alone."""
        keys = index[:, None] * self.num_negatives + np.arange(self.num_negatives)
        negatives = np.zeros(keys.shape, dtype=np.int64)
        left = np.ones(keys.shape, dtype=bool)
        users = torch.from_numpy(pairs.positives.query_user[pairs.query_ids[index]])
        owner = users[:, None].expand(keys.shape).numpy()
        for attempt in range(100):
            drawn = scattered(keys[left], self.seed, self.epoch, attempt) % pairs.sequences.num_items + 1
            negatives[left] = drawn
            taken = pairs.positives.of_users(torch.from_numpy(owner[left]), torch.from_numpy(negatives[left])).numpy()
            left[left] = taken
            if not left.any():
                return negatives
        for row, column in np.argwhere(left):  # of users who have nearly everything
            key = pairs.positives.query_user[pairs.query_ids[index[row]]] * (pairs.sequences.num_items + 1)
            every = np.arange(1, pairs.sequences.num_items + 1)
            free = every[~np.isin(key + every, pairs.positives.refused)]
            if len(free):  # who has everything keeps what was drawn: there is no negative
                draw = int(scattered(keys[row, [column]], self.seed, self.epoch, 100)[0])  # numpy warns of scalars
                negatives[row, column] = free[draw % len(free)]
        return negatives


def scattered(keys: np.ndarray, *salt: int) -> np.ndarray:
    """A pseudo-random non-negative int64 for every key (splitmix64): drawn in any order, the draws are the same."""
    state = keys.astype(np.uint64)
    for number in salt:
        state = _mix(state + np.uint64(0x9E3779B97F4A7C15 * (number + 1) % 2**64))
    return (_mix(state) >> np.uint64(1)).astype(np.int64)


def _mix(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))

"""Rows that ask for a set: all targets of a user at once, and not each after those before it."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from .collators import Sequence, SequenceDataset, ranges


class TargetSets(SequenceDataset):
    """Rows of validation or test as one query each: what does a user want who has the items before the first target?

    `rank_targets`, and so the trainer, then rank all targets of a row in one list, without what is before them, and
    metrics are means over users. That is the protocol of splits with `queries="users"` that hold out several items of a
    user; of a single one it says the same as `SequenceDataset`.

    Args:
        As of `SequenceDataset`.
    """

    def __getitem__(self, row: int) -> Sequence:
        """Ends before its targets, so that its only query is the tail; `query_start` is the id of that query."""
        start, first = self.offsets[row], self.first_target[row]
        return Sequence(self.values[start : start + first], int(first), int(self.query_start[row]), int(self.user[row]))

    @property
    def sizes(self) -> np.ndarray:
        """How many targets each row has, `(rows,)`, repeats among them."""
        return np.diff(self.offsets) - self.first_target

    def targets_of(self, query_ids: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The targets of some queries `(Q,)`, one list after the other, and whose each is: `(T,)` in `0..Q-1`.

        A set holds an item once, however often its user comes back to it.
        """
        rows = self._row_of[query_ids.cpu().numpy()]
        sizes = self.sizes[rows]
        owner = np.repeat(np.arange(len(rows)), sizes)
        at = (self.offsets[rows] + self.first_target[rows])[owner] + ranges(sizes)
        items = self.values[at].astype(np.int64)
        _, first = np.unique(owner * (self.num_items + 1) + items, return_index=True)
        first.sort()
        return items[first], owner[first]

    @property
    def _row_of(self) -> np.ndarray:
        rows = np.zeros(int(self.query_start.max(initial=-1)) + 1, dtype=np.int64)
        rows[self.query_start] = np.arange(len(self))
        return rows

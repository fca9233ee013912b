"""Which items the user of a training query has: what is never a negative of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .collators import SequenceDataset, ranges


class Positives:
    """The pairs of user and item in a training part, as sorted keys: a look-up is a binary search, no matrix.

    Args:
        sequences: the training part. Users are known by internal id where it numbers them. What its users `avoid` is no
            negative either, but they do not have it.
    """

    def __init__(self, sequences: SequenceDataset) -> None:
        lengths = np.diff(sequences.offsets)
        numbers = np.where(sequences.user > 0, sequences.user, sequences.owner + 1)  # of rows, from 1
        self.num_items = sequences.num_items
        self.query_user = np.zeros(sequences.num_queries, dtype=np.int64)  # (N,)
        reserved = lengths - sequences.first_target + 1
        self.query_user[np.repeat(sequences.query_start, reserved) + ranges(reserved)] = np.repeat(numbers, reserved)
        items = sequences.values[sequences.offsets[0] : sequences.offsets[-1]].astype(np.int64)
        self.keys = self.refused = np.unique(np.repeat(numbers, lengths) * (self.num_items + 1) + items)
        if sequences.avoid is not None:
            owners, avoided = sequences.avoid.cpu().numpy().astype(np.int64)
            self.refused = np.union1d(self.keys, owners * (self.num_items + 1) + avoided)

    def of_queries(self, query_ids: Tensor, items: Tensor) -> Tensor:
        """Which of the items `(Q, n)` are no negatives of the user of each query `(Q,)`: `(Q, n)`, on the CPU."""
        return self.of_users(torch.from_numpy(self.query_user)[query_ids.cpu()][:, None], items)

    def of_users(self, users: Tensor, items: Tensor) -> Tensor:
        """Which items are no negatives of users (internal ids); `(U, 1)` and `(n,)` make `(U, n)`, on the CPU."""
        wanted = (users.cpu() * (self.num_items + 1) + items.cpu()).numpy()
        at = np.searchsorted(self.refused, wanted).clip(max=len(self.refused) - 1)
        return torch.from_numpy(self.refused[at] == wanted)

    def items_of_queries(self, query_ids: Tensor) -> Tensor:
        """What the users of queries `(Q,)` have, `(Q, n)` with n the most that one of them has, filled up with 0."""
        width = self.num_items + 1
        return _lists(self.keys, self.query_user[query_ids.cpu().numpy()], width).to(query_ids.device)

    def users_of_items(self, item_ids: Tensor) -> Tensor:
        """Who has items `(n,)`, internal ids of users, `(n, m)` with m the most of one of them, filled up with 0."""
        users, items = np.divmod(self.keys, self.num_items + 1)
        width = int(users.max(initial=0)) + 1
        return _lists(np.sort(items * width + users), item_ids.cpu().numpy(), width).to(item_ids.device)


def _lists(keys: np.ndarray, owners: np.ndarray, width: int) -> Tensor:
    """What stands with each of `owners (n,)` in `keys`, sorted numbers `owner * width + value`: `(n, m)`, 0 padded."""
    begin, end = np.searchsorted(keys, [owners * width, (owners + 1) * width])
    count = end - begin
    out = np.zeros((len(owners), max(int(count.max(initial=0)), 1)), dtype=np.int64)
    row, place = np.repeat(np.arange(len(owners)), count), ranges(count)
    out[row, place] = keys[begin[row] + place] % width
    return torch.from_numpy(out)

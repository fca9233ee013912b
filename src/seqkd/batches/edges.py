"""Who has what: the interactions of a training part as pairs, and as one list for each user or each item."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..catalogue import PADDING
from ..errors import DataError
from .collators import SequenceDataset


def edges_of(sequences: SequenceDataset) -> Tensor:
    """The distinct pairs of user and item in a training part, `(2, E)` internal ids, by user and then by item.

    Raises:
        DataError: a row has no known user.
    """
    if not sequences.user.all():
        raise DataError(
            "a row of this part has no known user, so there is no graph. Give it the users of the training part: "
            "SequenceDataset(split.train, num_items, users=split.users)."
        )
    items = sequences.values[sequences.offsets[0] : sequences.offsets[-1]].astype(np.int64)
    width = sequences.num_items + 1
    keys = np.unique(np.repeat(sequences.user, np.diff(sequences.offsets)) * width + items)
    return torch.from_numpy(np.stack(np.divmod(keys, width)))


def distinct_edges(edges: Tensor, num_users: int, num_items: int) -> Tensor:
    """`edges (2, E)`, checked, each pair once, sorted by user and then by item, int32.

    Raises:
        DataError: another shape, no pair at all, or an id outside `1..U` or `1..I`.
    """
    if edges.dim() != 2 or len(edges) != 2 or edges.is_floating_point() or not edges.numel():
        raise DataError(f"edges must be integers (2, E) with E at least 1, got {edges.dtype} {tuple(edges.shape)}.")
    for name, ids, last in zip(("user", "item"), edges, (num_users, num_items), strict=True):
        if ids.min() < 1 or ids.max() > last:
            raise DataError(
                f"edges name {name}s {int(ids.min())}..{int(ids.max())}, but this model has 1..{last}. Take the "
                "edges from the training part that the model was configured for: edges_of(train)."
            )
    keys = (edges[0].long() * (num_items + 1) + edges[1]).unique()
    return torch.stack([keys // (num_items + 1), keys % (num_items + 1)]).int()


@dataclass(frozen=True)
class Neighbours:
    """What each of `1..n` is joined to: the items of users, or the users of items."""

    values: Tensor  # (E,) one list after the other
    starts: Tensor  # (n+2,) where the list of each id, 0 too, begins

    @classmethod
    def of(cls, owners: Tensor, values: Tensor, count: int) -> Neighbours:
        """From pairs, `owners (E,)` within `1..count` and `values (E,)`; a list keeps the order of its pairs."""
        order = owners.argsort(stable=True)
        degrees = owners.long().bincount(minlength=count + 1)
        return cls(values[order].long(), F.pad(degrees.cumsum(0), (1, 0)))

    def lists(self, ids: Tensor) -> Tensor:
        """The lists of `ids (n,)`, 0 padded: `(n, M)` int64, M the longest of them and at least 1."""
        start = self.starts[ids]
        lengths = self.starts[ids + 1] - start
        places = torch.arange(max(int(lengths.max()) if len(ids) else 0, 1), device=ids.device)
        filled = places < lengths[:, None]
        at = (start[:, None] + places).clamp_(max=len(self.values) - 1)
        return self.values[at].masked_fill(~filled, PADDING)

"""Lists side by side, each entry with a weight: what weighs most in all of them together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..catalogue import PADDING


def most_voted(items: Tensor, votes: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k items of highest total vote of every row, best first, `(n, k)`, and their votes; 0 where a row has fewer.

    Among equals the lower id comes first, so that a list does not depend on how it was made.

    Args:
        items: `(n, S)` lists side by side; 0 is an empty place.
        votes: `(n, S)` or `(S,)`, above 0.
    """
    ascending, order = items.sort(dim=1, stable=True)  # the votes for an item side by side
    votes = votes.expand(items.shape).gather(1, order).masked_fill(ascending == PADDING, 0.0)
    group = torch.zeros_like(order)  # number of the item within its row
    torch.cumsum(ascending[:, 1:] != ascending[:, :-1], dim=1, out=group[:, 1:])
    total = torch.zeros_like(votes).scatter_add_(1, group, votes)
    distinct = torch.zeros_like(items).scatter_(1, group, ascending)
    best = total.sort(dim=1, descending=True, stable=True)
    ranked, total = distinct.gather(1, best.indices[:, :k]), best.values[:, :k]
    missing = k - ranked.shape[1]
    return F.pad(ranked, (0, missing)), F.pad(total, (0, missing))

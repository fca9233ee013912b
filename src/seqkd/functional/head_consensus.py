"""The consensus of several heads about what a user wants, from their lists over time (ConCF, arXiv 2202.13140).

An item is important if heads rank it high, and if they have done so for a while: a rank that still wanders is a guess.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from .list_ranks import ranks_in
from .votes import most_voted

ROWS = 2**10  # users at a time
CONSISTENCY = ("deviation", "presence", "none")


@dataclass(frozen=True)
class HeadConsensusConfig:
    """How lists become one. Symbols as in the paper."""

    top: int = 100  # ranks from here on do not count
    rank_scale: float = 10.0  # T of exp(-rank / T)
    deviation_scale: float = 10.0  # T of exp(-deviation / T); the authors' code divides twice, which is 100
    # what a head adds to the rank: exp(-deviation / T); 1, as the first consensus of the authors' code; or nothing
    consistency: str = "deviation"

    def __post_init__(self) -> None:
        if self.top < 1 or not self.rank_scale > 0 or not self.deviation_scale > 0:
            raise ConfigError("top must be at least 1, rank_scale and deviation_scale above 0.")
        if self.consistency not in CONSISTENCY:
            raise ConfigError(f"consistency must be one of {CONSISTENCY}, got {self.consistency!r}.")


def head_consensus(rankings: Tensor, size: int, config: HeadConsensusConfig) -> tuple[Tensor, Tensor]:
    """The items of highest importance for each user, best first, `(U, C)`, and their importance, float64.

    `importance = sum_h 1[r_h < top] (exp(-r_h / T) + exp(-sd_h / T'))`, with `r_h` the newest rank, from 0, that head h
    gives, and `sd_h` its population standard deviation over the snapshots. An item is looked up in older lists; where
    it is not there, its rank counts as the length M of the list. So an item that came from deep below is taken for
    steadier than it was; with M = I this is exact.

    Args:
        rankings: `(W, h, U, M)`: snapshots, oldest first, of the lists of every head, best first, 0: an empty place.
        size: C. Places beyond the items that any head has in its top are 0.
    """
    parts = [_consensus(rankings[:, :, rows], size, config) for rows in torch.arange(rankings.shape[2]).split(ROWS)]
    items, importance = zip(*parts, strict=True)
    return torch.cat(items), torch.cat(importance)


def _consensus(rankings: Tensor, size: int, config: HeadConsensusConfig) -> tuple[Tensor, Tensor]:
    newest = rankings[-1, :, :, : config.top].long()  # (h, n, m)
    votes = torch.exp(-torch.arange(newest.shape[2]).double() / config.rank_scale).expand(newest.shape)
    if config.consistency == "deviation":
        votes = votes + torch.exp(-deviations(rankings, newest) / config.deviation_scale)
    elif config.consistency == "presence":
        votes = votes + 1
    items, votes = (part.transpose(0, 1).flatten(1) for part in (newest, votes))
    return most_voted(items, votes, size)


def deviations(rankings: Tensor, items: Tensor) -> Tensor:
    """Population standard deviation of the rank of `items (h, n, m)` over the snapshots `(W, h, n, M)`: `(h, n, m)`."""
    ranks = [ranks_in(lists.flatten(0, 1), items.flatten(0, 1)) for lists in rankings]
    return torch.stack(ranks).double().std(dim=0, correction=0).view(items.shape)

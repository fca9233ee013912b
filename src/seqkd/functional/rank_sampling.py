"""Draws from a teacher's rankings: some of the best by their place, and some of the rest uniformly.

For all rows at once, without a table of rows x entities. An entity is an item where rows are queries, or a user where
rows are items; 0 is an empty place.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, inf, log

import numpy as np
import torch
from torch import Generator, Tensor

CHUNK = 2**22  # draws held at a time
RARE = 2**24  # float32 cannot tell chances smaller than 1 in this


def log_weights(length: int, temperature: float) -> Tensor:
    """Log weight of each rank of a list, best first, `(length,)`: `-(r + 1) / T` with r from 0 (CIKM'20, eq. 6)."""
    return -torch.arange(1, length + 1) / temperature


def by_weight(lists: Tensor, log_rates: Tensor, size: int, generator: Generator) -> Tensor:
    """Places of K of every list, drawn without replacement by weight: `(n, K)` int64, ascending.

    Gumbel top-k: of clocks that ring at random with these rates, the first K to ring. Where a list is shorter than K,
    the last of its places are empty ones.

    Args:
        lists: `(n, M)`; empty places come last.
        log_rates: logarithms of the weights, `(n, M)`, or `(M,)` for all lists; finite.
        size: K, at most M.
    """
    rings = torch.rand(lists.shape, generator=generator).log_().neg_().log_().sub_(log_rates)
    rings.masked_fill_(lists == 0, inf)
    places = rings.topk(min(size, lists.shape[1]), dim=1, largest=False, sorted=False).indices
    return torch.from_numpy(np.sort(places.numpy(), axis=1))


def by_position(lists: Tensor, size: int, temperature: float, generator: Generator) -> Tensor:
    """K of every list, drawn without replacement by the weight of their rank, and left in the order of the list.

    Ranks so deep that not one in 2^24 lists would reach them are not drawn at all.

    Args:
        lists: `(n, M)`, best first; empty places come last.
        size: K, at most M. temperature: T.

    Returns:
        `(n, K)`, 0 where a list is shorter than K.
    """
    depth = min(lists.shape[1], ceil(size + temperature * log(size * RARE)))
    top = lists[:, :depth]
    return top.gather(1, by_weight(top, log_weights(depth, temperature), size, generator))


def uniform_outside(
    rows: Tensor,
    lists: Tensor,
    size: int,
    num_entities: int,
    taken: Callable[[Tensor, Tensor], Tensor],
    generator: Generator,
) -> Tensor:
    """L of every row, drawn uniformly without replacement from what is neither in its list nor taken.

    More than L are drawn with replacement and the first L admissible ones stay, which is the same; a row that falls
    short draws twice as many, in the end all entities in random order.

    Args:
        rows: `(n,)`, what `taken` calls the rows.
        lists: `(n, M)`, in any order.
        size: L. num_entities: they are 1..num_entities.
        taken: for rows `(m,)` and entities `(m, c)`: which may not be drawn, `(m, c)`.

    Returns:
        `(n, L)` int32, filled up with 0 where less is left.
    """
    drawn = torch.zeros(len(rows), size, dtype=torch.int32)

    def fill(left: Tensor, width: int) -> None:
        width = min(width, num_entities)
        for part in left.split(max(CHUNK // max(width, lists.shape[1]), 1)):
            if width == num_entities:
                candidates = torch.rand(len(part), width, generator=generator).argsort(dim=1).int() + 1
            else:
                shape = (len(part), width)
                candidates = torch.randint(1, num_entities + 1, shape, dtype=torch.int32, generator=generator)
            refused = repeats(candidates) | is_listed(candidates, lists[part]) | taken(rows[part], candidates)
            place = (~refused).cumsum(dim=1)
            row, column = (~refused & (place <= size)).nonzero(as_tuple=True)
            drawn[part] = 0
            drawn[part[row], place[row, column] - 1] = candidates[row, column]
            short = part[place[:, -1] < size]
            if len(short) and width < num_entities:
                fill(short, 2 * width)

    fill(torch.arange(len(rows)), size + size // 4 + 8)
    return drawn


def is_listed(entities: Tensor, lists: Tensor) -> Tensor:
    """Which of `entities (n, c)` are in the list of their row, `lists (n, M)`; both on the CPU."""
    ascending = torch.from_numpy(np.sort(lists.numpy(), axis=1))  # many times faster than torch.sort
    at = torch.searchsorted(ascending, entities).clamp_(max=lists.shape[1] - 1)
    return ascending.gather(1, at) == entities


def repeats(entities: Tensor) -> Tensor:
    """Which of `entities (n, c)` stand in an earlier place of their row, too."""
    width = entities.shape[1]
    keys = torch.from_numpy(np.sort((entities.long() * width + torch.arange(width)).numpy(), axis=1))
    again = torch.zeros_like(entities, dtype=torch.bool)
    again[:, 1:] = keys[:, 1:] // width == keys[:, :-1] // width
    return torch.zeros_like(again).scatter_(1, keys % width, again)

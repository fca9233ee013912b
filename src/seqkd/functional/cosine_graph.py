"""Which entities have much in common: the graph of those whose sets have a high cosine, of the density one asks for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor

LOWEST, HIGHEST = 0.1, 0.9  # between these a threshold is looked for
STEPS = 100  # of the bisection, at most
ROWS = 2048  # whose cosines are made at a time


def cosine_graph(
    owners: Tensor, members: Tensor, num_owners: int, *, degree: float = 10.0, tolerance: float = 0.6
) -> Tensor:
    """Pairs of distinct owners `(2, E)`, each in both directions, whose sets have a cosine above a threshold.

    The cosine of two sets is `|A and B| / sqrt(|A| |B|)`. The threshold is bisected in (0.1, 0.9) until an owner has
    `degree` neighbours on average, give or take `tolerance`. Where equal cosines leap over that, the graph is the
    sparser of the two at hand; one that is still too dense at 0.9, or too sparse at 0.1, is taken as it is.

    Nothing of size owners^2 is made: only pairs that share a member are looked at, and those above 0.1 are kept, 16
    bytes each (in the first block of Yelp users and items take half a second together).

    Args:
        owners: `(P,)` ids within `1..num_owners`; each pair of owner and member once.
        members: `(P,)` ids from 0 on, of the same length.

    Returns:
        int64, sorted by the first and then the second of a pair.
    """
    pairs, cosines = (torch.cat(parts, dim=-1) for parts in zip(*_close(owners, members, num_owners), strict=True))
    threshold = _threshold(cosines.sort().values, num_owners, degree, tolerance)
    return pairs[:, cosines > threshold].long()


def _threshold(ascending: Tensor, num_owners: int, degree: float, tolerance: float) -> float:
    low, high = LOWEST, HIGHEST
    for _ in range(STEPS):
        middle = (low + high) / 2
        above = len(ascending) - int(torch.searchsorted(ascending, middle, right=True))
        excess = above / num_owners - degree
        if abs(excess) < tolerance:
            return middle
        low, high = (middle, high) if excess > 0 else (low, middle)
    return high


def _close(owners: Tensor, members: Tensor, num_owners: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs `(2, E)` int32 with a cosine above the lowest threshold, and their cosines `(E,)`, by some owners."""
    owners, members = owners.long(), members.long()
    width = int(members.max()) + 1 if len(members) else 1
    sizes = owners.bincount(minlength=num_owners + 1).double()
    transposed = _incidence(members, owners, width, num_owners + 1)
    for start in range(0, num_owners + 1, ROWS):
        here = (owners >= start) & (owners < start + ROWS)
        rows = _incidence(owners[here] - start, members[here], ROWS, width)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR", category=UserWarning)  # which COO uses inside
            shared = torch.sparse.mm(rows, transposed).coalesce()  # how many members two owners share
        pairs = shared.indices() + torch.tensor([[start], [0]], device=owners.device)
        # the root of a product of integers is exact where it is one, so that equal cosines are equal numbers
        cosines = shared.values() / (sizes[pairs[0]] * sizes[pairs[1]]).sqrt()
        kept = (cosines > LOWEST) & (pairs[0] != pairs[1])
        yield pairs[:, kept].int(), cosines[kept]


def _incidence(rows: Tensor, columns: Tensor, height: int, width: int) -> Tensor:
    ones = torch.ones(len(rows), dtype=torch.float64, device=rows.device)
    return torch.sparse_coo_tensor(torch.stack([rows, columns]), ones, (height, width), check_invariants=True)

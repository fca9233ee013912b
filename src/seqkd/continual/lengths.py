"""How long the row of a newcomer is: as long as those of old ones that are as busy as it is (ours).

A mean of vectors is shorter than they are, and where scores are dot products the length of an item's row is how popular
it is: an item that starts as a mean of rows (CCD) points the right way, but nobody has it among his best. How popular a
newcomer is, its block tells: it has as many interactions there as some old ones have.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor


def peer_lengths(table: Tensor, interactions: Tensor) -> Tensor:
    """Of each newcomer the mean length of its peers' rows, `(n, 1)`.

    Peers are the old ones whose number of interactions is the same up to a factor of about 1.2: it has the same rounded
    2 log2(d). Where there are none, those of the nearest number that some have; of two as near, the smaller.

    Args:
        table: `(known + 1, D)`, the old rows behind that of padding.
        interactions: `(known + n + 1,)` in the block, by id.
    """
    known = len(table) - 1
    scale = (2 * interactions.clamp(min=0.5).double().log2()).round().long() + 2  # none is 0, one is 2
    old, new = scale[1 : known + 1], scale[known + 1 :]
    sums = torch.zeros(int(scale.max()) + 1, dtype=table.dtype).index_add_(0, old, table[1:].norm(dim=1).cpu())
    counts = torch.bincount(old, minlength=len(sums))
    there = counts.nonzero()[:, 0]
    nearest = there[(new[:, None] - there).abs().argmin(dim=1)]
    return cast(Tensor, (sums[nearest] / counts[nearest])[:, None].to(table.device))


def lengthened(rows: Tensor, lengths: Tensor) -> Tensor:
    """Rows `(n, D)` in their directions, of lengths `(n, 1)`; a row of zeros has none, and stays."""
    return torch.nn.functional.normalize(rows, dim=1) * lengths

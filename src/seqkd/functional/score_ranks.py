"""At which rank of a full ranking some items stand, by scores of the whole catalogue."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def ranks_by_score(scores: Tensor, items: Tensor) -> Tensor:
    """How many items score higher than each of `items (n, c)`, `(n, c)` int64: 0 for the best.

    One sort of each row and a binary search for each item, whatever c.

    Args:
        scores: `(n, I+1)`, padding the lowest, as `score` gives them. The rank of item 0, an empty place, is I.
    """
    scores = scores.detach().to(torch.promote_types(scores.dtype, torch.float32))
    wanted = scores.gather(1, items.long())
    if scores.device.type == "cpu":  # numpy's sort is many times faster than torch's there
        ascending = torch.from_numpy(np.sort(scores.numpy(), axis=1))
    else:
        ascending = scores.sort(dim=1).values
    return scores.shape[1] - torch.searchsorted(ascending, wanted.contiguous(), right=True)

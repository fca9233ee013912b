"""Binary cross-entropy with soft labels, of lists of items."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_bce(scores: Tensor, labels: Tensor, empty: Tensor) -> Tensor:
    """`-sum_i y_i log sigma(s_i) + (1 - y_i) log(1 - sigma(s_i))` of each row, `(n,)`, at least float32.

    Args:
        scores: logits s, `(n, K)`. labels: y in 0..1, `(n, K)`.
        empty: `(n, K)`, true at places that do not count.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    losses = F.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype), reduction="none")
    return losses.masked_fill(empty, 0.0).sum(dim=1)

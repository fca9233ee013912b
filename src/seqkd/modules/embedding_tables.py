"""Tables of embeddings that grow with the catalogue."""

from __future__ import annotations

import torch
from torch import nn

from ..catalogue import PADDING


@torch.no_grad()
def grown(table: nn.Embedding, count: int) -> nn.Embedding:
    """`table` with `count` more rows, each the mean of the old ones, which stay bit-equal."""
    old = table.weight
    longer = nn.Embedding(len(old) + count, old.shape[1], padding_idx=PADDING).to(old)
    longer.weight.copy_(torch.cat([old, old[PADDING + 1 :].mean(dim=0).expand(count, -1)]))
    return longer

"""The optimizer of the papers in this field: Adam with the decay in the gradient, at a constant rate."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


def coupled_adam(model: nn.Module, learning_rate: float, decay: float, batch: int) -> tuple[torch.optim.Adam, LambdaLR]:
    """AdamW would be another optimizer. The papers' losses are sums over the batch, ours means, so what is added to the
    gradient shrinks alike: `decay` and eps are theirs."""
    optimizer = torch.optim.Adam(
        model.parameters(), lr=learning_rate, weight_decay=decay / batch, eps=1e-8 / batch, fused=True
    )
    return optimizer, LambdaLR(optimizer, lambda step: 1.0)

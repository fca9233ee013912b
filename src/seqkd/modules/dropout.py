"""Dropout that draws 16 random bits per element: several times faster than `torch.nn.Dropout` on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16  # a probability is rounded to a multiple of 1 / LEVELS, and kept values are scaled by the rounded one


class Dropout(nn.Module):
    """Zeroes elements with probability `p` in training and scales the rest, as `torch.nn.Dropout` does."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def extra_repr(self) -> str:
        return f"p={self.p}"

    def forward(self, states: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return states
        if states.device.type != "cpu":
            return F.dropout(states, self.p)
        dropped = min(round(self.p * LEVELS), LEVELS - 1)
        words = torch.empty((states.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: states.numel()].view(states.shape)  # uniform over -2^15 .. 2^15 - 1
        keep = (bits >= dropped - LEVELS // 2).to(states.dtype).mul_(LEVELS / (LEVELS - dropped))
        return states * keep

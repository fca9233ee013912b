"""The first layer of an autoencoder of sets: a user as the set of his items, or an item as the set of its users."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..catalogue import PADDING


class SetEncoder(nn.Module):
    """`tanh(W^T x + b)` of sets, where `x` is the multi-hot vector of a set, of unit length, with dropout.

    `x` is never made: its layer is the sum of a row of `W` for each member, so a batch costs its members alone.

    Args:
        num_members: what a set may hold, ids from 1; 0 is padding.
        size: H.
        dropout_prob: share of the members left out in training; the others weigh more (Mult-VAE, arXiv 1802.05814).
    """

    def __init__(self, num_members: int, size: int, dropout_prob: float) -> None:
        super().__init__()
        self.table = nn.Embedding(num_members + 1, size, padding_idx=PADDING)
        self.bias = nn.Parameter(torch.zeros(size))
        self.dropout_prob = dropout_prob

    def forward(self, sets: Tensor) -> Tensor:
        """`(n, H)` of `sets (n, M)`, each member once, 0 padded."""
        members = (sets != PADDING).to(self.table.weight.dtype)
        x = members / members.sum(dim=1, keepdim=True).clamp(min=1).sqrt()
        x = F.dropout(x, self.dropout_prob, self.training)
        total = F.embedding_bag(sets, self.table.weight, per_sample_weights=x, mode="sum", padding_idx=PADDING)
        return torch.tanh(total + self.bias)

"""Parametric whitening and the mixture-of-experts adaptor of UniSRec (arXiv:2206.05941, section 2.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .dropout import Dropout


class MoEAdaptor(nn.Module):
    """Text vectors to item vectors: `sum_e gate_e(x) (dropout(x) - shift_e) weight_e`, all experts in one product.

    In training the gate is noisy, `x @ gate + N(0, 1) * (softplus(x @ noise) + epsilon)`, and every expert drops its
    own coordinates of x. A zero vector still yields `-mean_e(shift_e weight_e)`.

    Args:
        input_size: P, width of a text vector.
        output_size: D.
        num_experts: E.
        dropout: share of the coordinates of x dropped in training.
        noisy: add noise to the gate in training.
        noise_epsilon: smallest scale of that noise.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        num_experts: int = 8,
        *,
        dropout: float = 0.2,
        noisy: bool = True,
        noise_epsilon: float = 0.01,
    ) -> None:
        super().__init__()
        self.dropout, self.noisy, self.noise_epsilon = Dropout(dropout), noisy, noise_epsilon
        self.gate = nn.Parameter(torch.zeros(input_size, num_experts))  # (P, E)
        self.noise = nn.Parameter(torch.zeros(input_size, num_experts))  # (P, E)
        self.shift = nn.Parameter(torch.zeros(num_experts, input_size))  # (E, P)
        self.weight = nn.Parameter(torch.empty(num_experts, input_size, output_size).normal_(std=0.02))  # (E, P, D)

    def gates(self, x: Tensor) -> Tensor:
        """The share of every expert, `(N, E)` from x `(N, P)`."""
        logits = x @ self.gate  # (N, E)
        if self.training and self.noisy:
            logits = logits + torch.randn_like(logits) * (F.softplus(x @ self.noise) + self.noise_epsilon)
        return logits.softmax(dim=-1)

    def experts(self, x: Tensor) -> Tensor:
        """The whitened vector of every expert, `(N, E, D)` from x `(N, P)`."""
        if self.training and self.dropout.p:
            dropped = self.dropout(x.expand(len(self.shift), -1, -1))  # (E, N, P)
            projected = torch.bmm(dropped, self.weight).transpose(0, 1)  # (N, E, D)
        else:
            flat = self.weight.transpose(0, 1).flatten(1)  # (P, E * D)
            projected = (x @ flat).unflatten(1, (len(self.shift), -1))  # (N, E, D)
        return projected - torch.einsum("ep,epd->ed", self.shift, self.weight)  # W (x - b) = W x - W b

    def forward(self, x: Tensor) -> Tensor:
        """`(*, D)` from `(*, P)`."""
        flat = x.reshape(-1, x.shape[-1])  # (N, P)
        mixed = torch.bmm(self.gates(flat)[:, None], self.experts(flat)).squeeze(1)  # (N, D)
        return mixed.reshape(*x.shape[:-1], mixed.shape[-1])

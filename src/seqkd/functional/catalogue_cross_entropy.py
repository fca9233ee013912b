"""Cross-entropy between two softmaxes over the whole catalogue, both by dot products, in pieces."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 2**22  # logits held at a time


class _CatalogueCrossEntropy(torch.autograd.Function):
    """The gradient of the logits, `softmax(S) - softmax(T)`, is made anew in the backward pass, piece by piece."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, items: Tensor, teacher_queries: Tensor, teacher_items: Tensor) -> Tensor:
        losses = queries.new_empty(len(queries))
        for rows in torch.arange(len(queries), device=queries.device).split(max(CHUNK // len(items), 1)):
            log_q = (queries[rows] @ items.T).log_softmax(dim=1)
            losses[rows] = -((teacher_queries[rows] @ teacher_items.T).softmax(dim=1) * log_q).sum(dim=1)
        ctx.save_for_backward(queries, items, teacher_queries, teacher_items)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, items, teacher_queries, teacher_items = ctx.saved_tensors
        grad_queries, grad_items = torch.empty_like(queries), torch.zeros_like(items)
        for rows in torch.arange(len(queries), device=queries.device).split(max(CHUNK // len(items), 1)):
            wrong = (queries[rows] @ items.T).softmax(dim=1)
            wrong = wrong.sub_((teacher_queries[rows] @ teacher_items.T).softmax(dim=1)).mul_(grad[rows, None])
            grad_queries[rows] = wrong @ items
            grad_items.addmm_(wrong.T, queries[rows])
        return grad_queries, grad_items, None, None


def catalogue_cross_entropy(
    queries: Tensor, items: Tensor, teacher_queries: Tensor, teacher_items: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """`-sum_i softmax(T / tau)_i log softmax(S / tau)_i` of each query, `(Q,)`, in float32 (or float64) always.

    `S = queries @ items.T`, `T` likewise. No more than a few million logits are held at a time, at the price of making
    them twice.

    Args:
        queries: `(Q, D)`, already divided by the student's temperature; items: `(I+1, D)`, row 0 padding.
        teacher_queries, teacher_items: `(Q, d)` and `(I+1, d)`; they get no gradient.
    """
    dtype = torch.promote_types(torch.promote_types(queries.dtype, items.dtype), torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        return _CatalogueCrossEntropy.apply(
            queries.to(dtype) / temperature, items[1:].to(dtype),
            teacher_queries.detach().to(dtype) / temperature, teacher_items[1:].detach().to(dtype),
        )  # fmt: skip

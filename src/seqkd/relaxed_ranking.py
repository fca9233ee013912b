"""The relaxed ranking loss that RRD, IR-RRD and their descendants share (CIKM'20, arXiv 2012.04357, eq. 8)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class _RelaxedRanking(torch.autograd.Function):
    """The gradient is known in closed form, so it is made with the loss and costs one pass more, not three."""

    @staticmethod
    def forward(ctx: Any, interesting: Tensor, uninteresting: Tensor, empty: Tensor | None) -> Tensor:
        rest = uninteresting.logsumexp(dim=1, keepdim=True)  # (Q, 1)
        # log of what is still to be ranked at place k: the uninteresting, and the interesting from k on
        remaining = torch.cat([rest, interesting.flip(1)], dim=1).logcumsumexp(dim=1)[:, 1:].flip(1)  # (Q, K)
        losses = remaining - interesting
        if empty is not None:
            losses = losses.masked_fill(empty, 0.0)
        if any(ctx.needs_input_grad):
            chance = -remaining if empty is None else (-remaining).masked_fill(empty, torch.finfo(rest.dtype).min)
            # log of sum_{j<=k} 1 / remaining_j; times exp(score): how often a model would have ranked it by place k
            chance = chance.logcumsumexp(dim=1)  # (Q, K)
            grad = (interesting + chance).exp() - 1
            grad = grad if empty is None else grad.masked_fill(empty, 0.0)
            ctx.save_for_backward(grad, (uninteresting + chance[:, -1:]).exp())
        return losses.sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        interesting, uninteresting = ctx.saved_tensors
        return grad[:, None] * interesting, grad[:, None] * uninteresting, None


def relaxed_ranking(
    interesting: Tensor,
    uninteresting: Tensor,
    *,
    empty_interesting: Tensor | None = None,
    empty_uninteresting: Tensor | None = None,
) -> Tensor:
    """Minus the log probability that the interesting are ranked first and in this order, `(Q,)`, at least float32.

    The Plackett-Luce probability of the first K places, in which the uninteresting stand in every denominator and are
    never ranked among themselves: `sum_k log( sum_{j>=k} exp A_j + sum_l exp Z_l ) - A_k`. Nothing is clamped: it is
    finite, and its gradient right, for any finite scores.

    Args:
        interesting: A `(Q, K)`, scores of the student in the order of the teacher, best first.
        uninteresting: Z `(Q, L)`, scores in any order.
        empty_interesting, empty_uninteresting: `(Q, K)` and `(Q, L)`, true where a list has no entry.
    """
    dtype = torch.promote_types(torch.promote_types(interesting.dtype, uninteresting.dtype), torch.float32)
    # half the minimum: a score can be taken off it
    interesting, uninteresting, lowest = interesting.to(dtype), uninteresting.to(dtype), torch.finfo(dtype).min / 2
    if empty_interesting is not None:
        interesting = interesting.masked_fill(empty_interesting, lowest)
    if empty_uninteresting is not None:
        uninteresting = uninteresting.masked_fill(empty_uninteresting, lowest)
    return _RelaxedRanking.apply(interesting, uninteresting, empty_interesting)

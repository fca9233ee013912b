"""The relaxed ranking loss that RRD, IR-RRD and their descendants share (CIKM'20, arXiv 2012.04357, eq. 8)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SMALL = 1e-30  # a sum above it has lost nothing to underflow that float32 would show


class _RelaxedRanking(torch.autograd.Function):
    """The gradient is known in closed form, so it is made with the loss and costs one pass more, not three.

    `remaining_k` is what is still to be ranked at place k: the uninteresting, and the interesting from k on. An item of
    score s is expected to be ranked by place k with weight `exp(s) sum_{j<=k} 1 / remaining_j`.
    """

    @staticmethod
    def forward(ctx: Any, interesting: Tensor, uninteresting: Tensor, empty: Tensor) -> Tensor:
        answer = _by_sums(interesting, uninteresting, empty) if interesting.device.type == "cpu" else None
        losses, *grads = answer or _by_logs(interesting, uninteresting, empty)
        ctx.save_for_backward(*grads)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        interesting, uninteresting = ctx.saved_tensors
        return grad[:, None] * interesting, grad[:, None] * uninteresting, None


def _by_sums(interesting: Tensor, uninteresting: Tensor, empty: Tensor) -> tuple[Tensor, ...] | None:
    """Loss `(Q,)` and gradients from sums of exponentials, a fifth of the time; None where scores lie too far apart."""
    best = torch.maximum(interesting.amax(dim=1, keepdim=True), uninteresting.amax(dim=1, keepdim=True))  # (Q, 1)
    liked, rest = (interesting - best).exp_(), (uninteresting - best).exp_()
    remaining = liked.flip(1).cumsum(dim=1).flip(1).add_(rest.sum(dim=1, keepdim=True))  # (Q, K), falling
    if not (remaining[:, -1] > SMALL).all():
        return None
    filled = (~empty).to(remaining.dtype)
    losses = (remaining.log().add_(best).sub_(interesting).mul_(filled)).sum(dim=1)
    chance = (filled / remaining).cumsum_(dim=1)
    return losses, liked.mul_(chance).sub_(filled), rest.mul_(chance[:, -1:])


def _by_logs(interesting: Tensor, uninteresting: Tensor, empty: Tensor) -> tuple[Tensor, ...]:
    """The same for any finite scores."""
    rest = uninteresting.logsumexp(dim=1, keepdim=True)  # (Q, 1)
    remaining = torch.cat([rest, interesting.flip(1)], dim=1).logcumsumexp(dim=1)[:, 1:].flip(1)  # (Q, K)
    losses = (remaining - interesting).masked_fill(empty, 0.0).sum(dim=1)
    chance = (-remaining).masked_fill(empty, torch.finfo(rest.dtype).min).logcumsumexp(dim=1)  # (Q, K)
    grad = ((interesting + chance).exp() - 1).masked_fill(empty, 0.0)
    return losses, grad, (uninteresting + chance[:, -1:]).exp()


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
    if empty_interesting is None:
        empty_interesting = torch.zeros_like(interesting, dtype=torch.bool)
    else:
        interesting = interesting.masked_fill(empty_interesting, lowest)
    if empty_uninteresting is not None:
        uninteresting = uninteresting.masked_fill(empty_uninteresting, lowest)
    return _RelaxedRanking.apply(interesting, uninteresting, empty_interesting)

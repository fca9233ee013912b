"""Weights of several objectives, set so that all of them learn at about the same pace (GradNorm, arXiv 1711.02257).

As in ConCF (arXiv 2202.13140): the norms are those of the gradients of shared tables, and what is minimised over the
weights is how far the norms are from where the pace of each objective says they should be.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed
from torch import Tensor, nn

FLOOR = 0.01  # of a weight
BETAS, EPS = (0.9, 0.999), 1e-8  # of Adam


class ObjectiveBalance(nn.Module):
    """The state of the balance; all of it is saved. Nothing of it reaches the gradients of the model.

    Every micro-batch is a step of the weights; processes agree by the mean of their norms.

    Args:
        count: h, objectives.
        asymmetry: tau of ConCF, alpha of GradNorm: how much the slow ones are favoured.
        learning_rate: of the weights' own Adam.
    """

    first_losses: Tensor  # (h,) L(0)
    mean: Tensor  # (h,) of the gradient, Adam's
    square: Tensor  # (h,) of its square
    steps: Tensor  # ()

    def __init__(self, count: int, *, asymmetry: float, learning_rate: float) -> None:
        super().__init__()
        self.asymmetry, self.learning_rate = asymmetry, learning_rate
        for name in ("first_losses", "mean", "square"):
            self.register_buffer(name, torch.zeros(count))
        self.register_buffer("steps", torch.zeros(()))

    @torch.no_grad()
    def step(self, weights: Tensor, losses: Tensor, norms: Tensor, slopes: Tensor, *, settling: bool) -> None:
        """Move `weights (h,)` in place, one step of Adam; their sum stays h.

        Args:
            losses, norms: `(h,)` the weighted objectives and G, the norms of their gradients.
            slopes: `(h,)` derivatives of the norms by the weights.
            settling: these losses are what later ones are compared with.
        """
        losses, norms, slopes = (part.to(weights) for part in agreed(losses, norms, slopes))
        if settling:
            self.first_losses.copy_(losses)
        slopes = (norms - targets(losses, norms, self.first_losses, self.asymmetry)).sign() * slopes
        self.steps += 1
        self.mean.lerp_(slopes, 1 - BETAS[0])
        self.square.lerp_(slopes.square(), 1 - BETAS[1])
        mean, square = (
            part / (1 - beta**self.steps) for part, beta in zip((self.mean, self.square), BETAS, strict=True)
        )
        weights -= self.learning_rate * mean / (square.sqrt() + EPS)
        weights.mul_(len(weights) / weights.sum()).clamp_(min=FLOOR)


def targets(losses: Tensor, norms: Tensor, first_losses: Tensor, asymmetry: float) -> Tensor:
    """C `(h,)`: `mean(G) ((L / L0) / mean(L / L0))^tau`, what the norm of each objective should be."""
    tiny = torch.finfo(losses.dtype).tiny  # an objective that is met, as a hinge can be
    pace = losses / first_losses.clamp(min=tiny)
    return norms.mean() * (pace / pace.mean().clamp(min=tiny)) ** asymmetry


def measure(
    losses: Sequence[Tensor], factors: Tensor, slopes: Tensor, tables: Sequence[Tensor], shares: Sequence[float]
) -> Tensor:
    """An objective `sum_k factor_k(w) L_k`, the norm G of its gradient, the derivative of G by the weight w: `(3,)`.

    `G = sum_t share_t |v_t|` over tables t, with `v_t = sum_k factor_k dL_k/dt`. So its derivative needs no second one
    of the losses: it is `sum_t share_t <v_t, sum_k factor_k' dL_k/dt> / |v_t|`.

    Args:
        losses: K of `()`. Their graphs are kept, and no gradient is accumulated anywhere.
        factors, slopes: `(K,)` of each loss, and their derivatives by w.
    """
    objective = torch.stack([loss.detach() for loss in losses]).to(factors) @ factors
    norm = slope = torch.zeros_like(objective)
    for gradients, share in zip(
        zip(*(gradients_of(loss, tables) for loss in losses), strict=True), shares, strict=True
    ):
        whole = sum(factor * gradient for factor, gradient in zip(factors, gradients, strict=True))
        change = sum(factor * gradient for factor, gradient in zip(slopes, gradients, strict=True))
        length = torch.as_tensor(whole).norm()
        norm = norm + share * length
        slope = slope + share * (whole * change).sum() / length.clamp(min=torch.finfo(length.dtype).tiny)
    return torch.stack([objective, norm, slope])


def gradients_of(loss: Tensor, tables: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """By each table; one zero for all of a table that the loss does not reach."""
    zeros = tuple(table.new_zeros(()) for table in tables)
    if not loss.requires_grad:
        return zeros
    found = torch.autograd.grad(loss, tuple(tables), retain_graph=True, allow_unused=True)
    return tuple(zero if one is None else one for one, zero in zip(found, zeros, strict=True))


def agreed(*values: Tensor) -> Tensor:
    """The mean over processes of vectors `(h,)`, stacked."""
    stacked = torch.stack(values)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(stacked)
        stacked /= torch.distributed.get_world_size()
    return stacked

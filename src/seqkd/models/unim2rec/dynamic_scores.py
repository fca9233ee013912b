"""Scores of several views of an item, of which the better matches count more (MISSRec, "dynamic_shared")."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...catalogue import PADDING

CHUNK = 2**20  # cosines held at a time where gradients are wanted


def dynamic_scores(queries: Tensor, views: Tensor, sharpness: Tensor, modalities: int) -> Tensor:
    """Similarities `(Q, C)`: sum over m of softmax_m(sharpness * cos_m) * cos_m, with ids (cos_id + 2 * that) / 3.

    Args:
        queries: `(Q, D)` of unit length.
        views: `(C, K, D)` shared by all queries or `(Q, C, K, D)`; unit length, 0 where an item lacks a view. The first
            `modalities` are content; one more is the learned vector.
        sharpness: `(1,)`, phi.
    """
    equation = "qd,ckd->kqc" if views.dim() == 3 else "qd,qckd->kqc"
    cosines = torch.einsum(equation, queries, views)  # (K, Q, C)
    content = cosines[:modalities]
    there = views[..., :modalities, :].any(dim=-1).movedim(-1, 0)  # (M, C) or (M, Q, C)
    there = there[:, None] if views.dim() == 3 else there
    weights = (sharpness * content).masked_fill(~there, torch.finfo(content.dtype).min).softmax(dim=0)
    mixed = (weights * content).sum(dim=0)  # an item without any view: weights alike, cosines 0
    return mixed if len(cosines) == modalities else (cosines[modalities] + 2 * mixed) / 3


def dynamic_log_probs(
    queries: Tensor, views: Tensor, item_ids: Tensor, sharpness: Tensor, modalities: int, temperature: float
) -> Tensor:
    """Log-softmax of `dynamic_scores / temperature` over the catalogue at `item_ids (Q, n)`, `(Q, n)`; 0 at padding.

    Queries go chunk by chunk and are computed again in the backward pass, so that memory does not grow with Q x I.
    It costs K matrix products for the one of a dot product, and a softmax over K views for every score.

    Args:
        views: `(I+1, K, D)`, row 0 padding.
    """

    def chosen(queries: Tensor, item_ids: Tensor) -> Tensor:
        with torch.autocast(queries.device.type, enabled=False):
            logits = dynamic_scores(queries, views, sharpness, modalities) / temperature
            return logits.log_softmax(dim=1).gather(1, (item_ids - 1).clamp(min=0))

    queries, views = queries.float(), views[PADDING + 1 :].float()
    step = max(CHUNK // max(views.shape[0] * views.shape[1], 1), 1)
    parts = [
        checkpoint(chosen, *part, use_reentrant=False, preserve_rng_state=False)
        for part in zip(queries.split(step), item_ids.split(step), strict=True)
    ]
    return torch.cat(parts).masked_fill(item_ids == PADDING, 0.0)

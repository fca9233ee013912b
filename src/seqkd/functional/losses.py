"""Recommendation losses as tensor functions: one value per query, no reduction, finite for any finite logits.

The softmax over the whole catalogue is one primitive, `catalogue_log_probs`: hard labels, a teacher's soft list, or
both at once are linear in it, and its memory does not grow with queries x items.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..catalogue import PADDING

CPU_CHUNK = 2**18  # logits made at a time: these stay in the cache of a core,
CHUNK = 2**26  # these keep a GPU busy
KEEP = 2**26  # up to 256 MB of probabilities are kept for the backward pass; more are computed a second time


class _CatalogueLogProbs(torch.autograd.Function):
    """Forward: one matmul and one softmax pass. Backward: two matmuls, and the first again where it was not kept."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, items: Tensor, columns: Tensor, chunk: int, keep: int) -> Tensor:
        size, width = len(queries), len(items)
        kept = queries.new_empty((size, width) if size * width <= keep and any(ctx.needs_input_grad) else (0, 0))
        chosen = queries.new_empty(columns.shape)  # (Q, M)
        normaliser = queries.new_empty(size, 1)  # (Q, 1)
        with torch.autocast(queries.device.type, enabled=False):
            for rows in _slices(size, width, chunk):
                logits = queries[rows] @ items.T  # (chunk, I)
                probs = torch.softmax(logits, 1, out=kept[rows]) if len(kept) else logits.softmax(1)
                # The largest probability is exp(0) / sum, so this is max + log(sum) without a second pass of exp.
                normaliser[rows] = logits.amax(1, keepdim=True) - probs.amax(1, keepdim=True).log()
                chosen[rows] = logits.gather(1, columns[rows])
        ctx.save_for_backward(queries, items, columns, normaliser, kept)
        ctx.chunk = chunk
        return chosen - normaliser

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, items, columns, normaliser, kept = ctx.saved_tensors
        grad_queries, grad_items = torch.empty_like(queries), torch.zeros_like(items)
        total = grad.sum(1, keepdim=True)  # (Q, 1)
        with torch.autocast(queries.device.type, enabled=False):
            for rows in _slices(len(queries), len(items), ctx.chunk):
                probs = kept[rows] if len(kept) else (queries[rows] @ items.T).sub_(normaliser[rows]).exp_()
                grad_logits = (probs * -total[rows]).scatter_add_(1, columns[rows], grad[rows])  # (chunk, I)
                torch.mm(grad_logits, items, out=grad_queries[rows])
                grad_items.addmm_(grad_logits.T, queries[rows])
        return grad_queries, grad_items, None, None, None


def _slices(size: int, width: int, chunk: int) -> list[slice]:
    step = max(chunk // max(width, 1), 1)
    return [slice(at, min(at + step, size)) for at in range(0, size, step)]


def catalogue_log_probs(
    queries: Tensor,
    items: Tensor,
    item_ids: Tensor,
    *,
    mask_padding: bool = True,
    chunk_size: int | None = None,
    keep_size: int = KEEP,
) -> Tensor:
    """Log-softmax over the whole catalogue, read off at some items: `(Q, M)`, in float32 (or float64) always.

    Args:
        queries: `(Q, D)`, already divided by the temperature.
        items: `(I+1, D)`, row 0 padding.
        item_ids: `(Q, M)` internal ids. Padding (0) fills up short lists: it yields 0 and no gradient.
        mask_padding: leave the padding item out of the softmax; False counts it as an item, as RecBole does.
        chunk_size: logits held at a time; by default what suits the device.
        keep_size: probabilities kept for the backward pass; above it they are computed a second time.
    """
    dtype = torch.promote_types(torch.promote_types(queries.dtype, items.dtype), torch.float32)
    queries, items = queries.to(dtype), items.to(dtype)
    chunk = chunk_size or (CPU_CHUNK if queries.device.type == "cpu" else CHUNK)
    if not mask_padding:
        return _CatalogueLogProbs.apply(queries, items, item_ids, chunk, keep_size)
    columns = (item_ids - 1).clamp(min=0)
    log_probs = _CatalogueLogProbs.apply(queries, items[PADDING + 1 :], columns, chunk, keep_size)
    return log_probs.masked_fill(item_ids == PADDING, 0.0)


def softmax(
    queries: Tensor, items: Tensor, targets: Tensor, *, mask_padding: bool = True, chunk_size: int | None = None
) -> Tensor:
    """Cross-entropy of the target against the whole catalogue, `(Q,)`; `targets (Q,)`, the rest as above."""
    chosen = catalogue_log_probs(queries, items, targets[:, None], mask_padding=mask_padding, chunk_size=chunk_size)
    return -chosen.squeeze(1)


def soft_cross_entropy(queries: Tensor, items: Tensor, top_items: Tensor, top_probs: Tensor) -> Tensor:
    """Cross-entropy of a teacher's sparse distribution against the softmax over the whole catalogue, `(Q,)`.

    Args:
        queries: `(Q, D)`, already divided by the temperature.
        items: `(I+1, D)`, row 0 padding.
        top_items: `(Q, M)` internal ids; 0 fills up short lists.
        top_probs: `(Q, M)`; they need not sum to one (the rest is mass the teacher leaves open).
    """
    return -(top_probs * catalogue_log_probs(queries, items, top_items)).sum(1)


def sample_by_count(item_counts: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Negatives shared by a batch, drawn with replacement in proportion to `item_counts + 1`.

    Args:
        item_counts: `(I+1,)`, row 0 padding (never drawn).
        n: N, how many.

    Returns:
        `(N,)` internal ids and `(I+1,)` the log probability of each item in one draw (0 at padding).
    """
    weights = item_counts[1:].double() + 1  # (I,)
    cumulative = weights.cumsum(0)
    # Not torch.multinomial: it ends at 2^24 items.
    draws = torch.rand(n, dtype=torch.float64, device=weights.device) * cumulative[-1]
    negatives = torch.searchsorted(cumulative, draws, right=True).clamp_(max=len(weights) - 1) + 1
    log_q = torch.log(weights / cumulative[-1]).float()
    return negatives, F.pad(log_q, (1, 0))


def sample_uniform(targets: Tensor, num_items: int, n: int) -> Tensor:
    """`(Q, N)` items drawn uniformly from all but the query's own target `(Q,)`."""
    if num_items < 2:
        return torch.ones(len(targets), n, dtype=torch.long, device=targets.device)
    draws = torch.randint(1, num_items, (len(targets), n), device=targets.device)  # 1..I-1
    return draws + (draws >= targets[:, None])


def sampled_softmax(positive: Tensor, logits: Tensor, targets: Tensor, negatives: Tensor, log_q: Tensor) -> Tensor:
    """Softmax cross-entropy with the normaliser estimated from shared negatives (Jean et al. 2015, eq. 8), `(Q,)`.

    A negative drawn N times with probability `q` stands for `1 / (N q)` items. The positive is always there and stands
    for itself; a negative that happens to be the target is masked. So the loss tends to `softmax` as N grows.

    Args:
        positive: `(Q,)` logits of the targets.
        logits: `(Q, N)` logits of the negatives.
        targets: `(Q,)` internal ids.
        negatives: `(N,)` internal ids, from `sample_by_count`.
        log_q: `(I+1,)` log probability of each item in one draw.
    """
    positive, logits = _wide(positive), _wide(logits)
    expected = log_q[negatives] + math.log(len(negatives))  # (N,) how often an item was to be expected among them
    corrected = (logits - expected).masked_fill(targets[:, None] == negatives, torch.finfo(logits.dtype).min)
    return torch.logsumexp(torch.cat([positive[:, None], corrected], dim=1), dim=1) - positive


def bce(positive: Tensor, negatives: Tensor) -> Tensor:
    """`-log s(pos) - mean_n log(1 - s(neg_n))`, `(Q,)` (SASRec, arXiv 1808.09781, eq. 6, mean over negatives).

    Args:
        positive: `(Q,)` logits.
        negatives: `(Q, N)` logits.
    """
    return F.softplus(-_wide(positive)) + F.softplus(_wide(negatives)).mean(1)


def gbce(positive: Tensor, negatives: Tensor, *, num_items: int, t: float) -> Tensor:
    """Generalised BCE of gSASRec (arXiv 2308.07192, eq. 9 to 11), the mean over the positive and its negatives, `(Q,)`.

    The positive probability is raised to `beta`, which undoes the overconfidence that sampling negatives brings.

    Args:
        positive: `(Q,)` logits.
        negatives: `(Q, N)` logits.
        num_items: I.
        t: calibration, 0 (plain BCE) to 1.
    """
    alpha = negatives.shape[1] / max(num_items - 1, 1)
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    total = beta * F.softplus(-_wide(positive)) + F.softplus(_wide(negatives)).sum(1)
    return total / (1 + negatives.shape[1])


def bpr(positive: Tensor, negatives: Tensor) -> Tensor:
    """`-mean_n log s(pos - neg_n)`, `(Q,)` (BPR, arXiv 1205.2618); `positive (Q,)` and `negatives (Q, N)` logits."""
    return F.softplus(_wide(negatives) - _wide(positive)[:, None]).mean(1)


def hinge(positive: Tensor, negatives: Tensor, *, margin: float) -> Tensor:
    """`mean_n max(margin - pos + neg_n, 0)` (large margin nearest neighbours; CML, WWW 2017, eq. 1), `(Q,)`.

    Args:
        positive: `(Q,)` logits, of CML negative squared distances.
        negatives: `(Q, N)` logits.
        margin: what a positive has to be ahead.
    """
    return F.relu(margin - _wide(positive)[:, None] + _wide(negatives)).mean(1)


def _wide(logits: Tensor) -> Tensor:
    """At least float32: half precision loses the tail of a log-sigmoid."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))

"""What a ranking leaves over: the log-sum-exp of all items of the catalogue but some, by dot products, in pieces.

Or an estimate of it from a sample of the items, the same for all queries.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..catalogue import PADDING

CPU_CHUNK = 2**18  # logits made at a time: these stay in the cache of a core,
CHUNK = 2**26  # these keep a GPU busy
KEEP = 2**26  # up to 256 MB of probabilities are kept for the backward pass; more are computed a second time


class _LogSumExpWithout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, items: Tensor, excluded: Tensor, chunk: int, keep: int) -> Tensor:
        size, width = len(queries), len(items)
        kept = queries.new_empty((size, width) if size * width <= keep and any(ctx.needs_input_grad) else (0, 0))
        rest = queries.new_empty(size)
        for rows in _slices(size, width, chunk):
            logits = _masked(queries[rows] @ items.T, excluded[rows])
            probs = torch.softmax(logits, 1, out=kept[rows]) if len(kept) else logits.softmax(1)
            # the largest probability is exp(0) / sum, so this is max + log(sum) without a second pass of exp
            rest[rows] = logits.amax(1) - probs.amax(1).log()
        ctx.save_for_backward(queries, items, excluded, rest, kept)
        ctx.chunk = chunk
        return rest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, items, excluded, rest, kept = ctx.saved_tensors
        grad_queries, grad_items = torch.empty_like(queries), torch.zeros_like(items)
        grad = grad.masked_fill(rest <= lowest(rest.dtype), 0.0)[:, None]  # of an empty sum
        for rows in _slices(len(queries), len(items), ctx.chunk):
            if len(kept):
                probs = kept[rows]
            else:
                probs = _masked(queries[rows] @ items.T, excluded[rows]).sub_(rest[rows, None]).exp_()
            torch.mm(probs, items, out=grad_queries[rows])
            grad_items.addmm_(probs.T, queries[rows] * grad[rows])
        return grad_queries * grad, grad_items, None, None, None


def _masked(logits: Tensor, excluded: Tensor) -> Tensor:
    logits[:, PADDING] = lowest(logits.dtype)
    return logits.scatter_(1, excluded, lowest(logits.dtype))


def _slices(size: int, width: int, chunk: int) -> list[slice]:
    step = max(chunk // max(width, 1), 1)
    return [slice(at, min(at + step, size)) for at in range(0, size, step)]


def lowest(dtype: torch.dtype) -> float:
    """Half the dtype's minimum: the log of nothing, from which a score can still be taken."""
    return torch.finfo(dtype).min / 2


def log_sum_exp_without(
    queries: Tensor, items: Tensor, excluded: Tensor, *, chunk_size: int | None = None, keep_size: int = KEEP
) -> Tensor:
    """`log sum_i exp(queries . items_i)` over all items that are not excluded, `(Q,)`, at least float32.

    Excluded items are masked, not subtracted from a total in which they may be all that float32 can see. Where nothing
    is left, it is half the dtype's minimum, without gradient.

    Args:
        queries: `(Q, D)`, already divided by the temperature.
        items: `(I+1, D)`, row 0 padding, which is never part of the sum.
        excluded: `(Q, E)` internal ids, int64, in any order and as often as you like; 0 fills up.
        chunk_size: logits held at a time; by default what suits the device.
        keep_size: probabilities kept for the backward pass; above it they are computed a second time.
    """
    dtype = torch.promote_types(torch.promote_types(queries.dtype, items.dtype), torch.float32)
    chunk = chunk_size or (CPU_CHUNK if queries.device.type == "cpu" else CHUNK)
    with torch.autocast(queries.device.type, enabled=False):
        return _LogSumExpWithout.apply(queries.to(dtype), items.to(dtype), excluded, chunk, keep_size)


def sampled_log_sum_exp_without(queries: Tensor, items: Tensor, excluded: Tensor, most: int) -> Tensor:
    """`log (I/m sum_j exp(queries . items_j))` over those of m items, drawn without replacement, that are not excluded.

    The sum is right in the mean (Horvitz and Thompson 1952), so that its logarithm is a little low. With m = I it is
    `log_sum_exp_without`, whose arguments these are.

    Args:
        most: m; of a smaller catalogue all are taken.
    """
    count = len(items) - 1
    drawn = torch.randperm(count, device=items.device)[:most] + 1
    place = torch.zeros(len(items), dtype=torch.long, device=items.device)
    place[drawn] = torch.arange(1, len(drawn) + 1, device=items.device)
    sample = torch.cat([items[:1], items[drawn]])  # whose row of padding is the first, too
    return log_sum_exp_without(queries, sample, place[excluded]) + math.log(count / len(drawn))

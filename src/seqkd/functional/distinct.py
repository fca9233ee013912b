"""The distinct ids of a batch: where the same query, user or item comes several times, a method teaches it once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def first_of_each(ids: Tensor, most: int | None = None) -> Tensor:
    """Where each distinct id of `ids (n,)` occurs first, in ascending order of the ids: `(distinct,)` int64.

    Args:
        most: of more distinct ids only so many, drawn at random, in no order.
    """
    order = ids.argsort(stable=True)
    ascending = ids[order]
    opens = torch.ones_like(ids, dtype=torch.bool)
    opens[1:] = ascending[1:] != ascending[:-1]
    first = order[opens]
    if most is None or len(first) <= most:
        return first
    return first[torch.randperm(len(first), device=first.device)[:most]]


def spread(losses: Tensor, rows: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """What distinct queries cost as one loss per query, `(Q,)`.

    The mean over the queries of the step is then the mean over its distinct queries, however often each is asked. Of
    queries that were not drawn the loss is 0, and the others stand for them: the mean is as large in expectation.

    Args:
        losses: `(n,)`, of the queries at `rows (n,)` of the batch, as `first_of_each` gives them.
        batch: with `query_ids (Q,)`, and `step_query_ids (S,)` where the step is carried by several micro-batches.
    """
    distinct, place = batch["query_ids"].unique(return_inverse=True)
    every = losses.new_zeros(len(distinct))
    every = every.index_put((place[rows],), losses * (len(distinct) / max(len(rows), 1)))
    return every[place] * share_of_each(batch)


def share_of_each(batch: Mapping[str, Tensor]) -> Tensor:
    """Weights `(Q,)` that count every distinct query of the step once; 1 where each is asked once. See `spread`."""
    query_ids = batch["query_ids"]
    step = batch.get("step_query_ids", query_ids)
    distinct, times = step.unique(return_counts=True)
    return len(step) / (len(distinct) * times[torch.searchsorted(distinct, query_ids)])

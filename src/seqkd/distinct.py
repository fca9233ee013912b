"""The distinct ids of a batch: where the same query, user or item comes several times, a method teaches it once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def first_of_each(ids: Tensor) -> Tensor:
    """Where each distinct id of `ids (n,)` occurs first, in ascending order of the ids: `(distinct,)` int64."""
    order = ids.argsort(stable=True)
    ascending = ids[order]
    opens = torch.ones_like(ids, dtype=torch.bool)
    opens[1:] = ascending[1:] != ascending[:-1]
    return order[opens]


def spread(losses: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """What each distinct query costs, `(distinct,)` in ascending order of the ids, as one loss per query, `(Q,)`.

    The mean over the queries of the step is then the mean over its distinct queries, however often each is asked.

    Args:
        batch: with `query_ids (Q,)`, and `step_query_ids (S,)` where the step is carried by several micro-batches.
    """
    query_ids = batch["query_ids"]
    return losses[query_ids.unique(return_inverse=True)[1]] * share_of_each(batch)


def share_of_each(batch: Mapping[str, Tensor]) -> Tensor:
    """Weights `(Q,)` that count every distinct query of the step once; 1 where each is asked once. See `spread`."""
    query_ids = batch["query_ids"]
    step = batch.get("step_query_ids", query_ids)
    distinct, times = step.unique(return_counts=True)
    return len(step) / (len(distinct) * times[torch.searchsorted(distinct, query_ids)])

"""Item drop of UniSRec (arXiv:2206.05941, section 2.2.2) on packed batches."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class DroppedItems(NamedTuple):
    """An augmented batch, laid out as the original: each sequence starts where it did and leaves a gap at its end.

    `query_index (Q,)` is the slot that answers each query now. `twin (Q,)` marks the queries whose augmented prefix is
    exact: a slot holds the last item of a run, so a query inside a run would see beyond its own history.
    """

    item_ids: Tensor
    sequence_ids: Tensor
    position_ids: Tensor
    query_index: Tensor
    twin: Tensor


def drop_items(
    item_ids: Tensor, sequence_ids: Tensor, position_ids: Tensor, query_index: Tensor, keep: Tensor
) -> DroppedItems:
    """Drop the items whose `keep (B, H)` is 0 as the authors do: a dropped item *replaces* the kept one before it.

    The slot of position p is the number of kept items up to p, minus one; items of one slot overwrite each other, so a
    run collapses to its last item.
    """
    keep = keep.bool() | (sequence_ids == 0) | (position_ids == 0)  # padding and first items stay
    slots = torch.arange(item_ids.numel(), device=item_ids.device).view_as(item_ids)  # flat index of every slot
    start = slots - position_ids  # flat index of the first slot of the own sequence
    kept = keep.flatten().cumsum(0)
    shift = kept.view_as(start) - kept[start]  # (B, H) new position
    last_of_run = torch.cat([keep.flatten()[1:], keep.new_ones(1)])  # the next slot starts a run of its own
    target = (start + shift).flatten()[last_of_run]  # distinct: every run has a slot of its own

    def move(values: Tensor) -> Tensor:
        return torch.zeros_like(values).flatten().index_copy_(0, target, values.flatten()[last_of_run]).view_as(values)

    queries = (start + shift).flatten()[query_index]
    return DroppedItems(move(item_ids), move(sequence_ids), move(shift), queries, last_of_run[query_index])

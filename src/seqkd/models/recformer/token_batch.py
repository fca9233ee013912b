"""Histories of items -> batches of tokens, gathered on the device from the tokens of all items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

SEQUENCE, NAME, VALUE, PAD = range(4)  # token types
SIMILAR = 0.8  # sequences shorter than that share of the longest wait for the next batch
SMALLEST = 512  # tokens, unless there are no more
TOKENS = 8192  # tokens of a batch, padding included: few enough for the caches of a core, enough to keep it busy


class TokenBatch(NamedTuple):
    """What the encoder reads, all `(B, T)`: `<s>`, the tokens of the newest item, of the one before it, ...

    `item_position_ids` is 0 for `<s>` and 1 for the newest item; `slots` is where a token comes from in the flattened
    table of item tokens `(I+1, L)`, -1 for `<s>` and padding. `attention_mask` is True for tokens that are read.
    """

    input_ids: Tensor
    token_type_ids: Tensor
    item_position_ids: Tensor
    attention_mask: Tensor
    slots: Tensor


class ItemTable(NamedTuple):
    """The tokens of all items: `input_ids`, `token_types` `(I+1, L)`, `lengths (I+1,)`; padding, row 0, has none."""

    input_ids: Tensor
    token_types: Tensor
    lengths: Tensor


def assemble(
    histories: Tensor, items: ItemTable, *, max_tokens: int, bos_token_id: int, pad_token_id: int, pad_position: int
) -> TokenBatch:
    """The tokens of `histories (B, n)` (newest first, 0 padded), each cut to `max_tokens`, without inner padding."""
    lengths = items.lengths[histories].long()  # (B, n)
    ends = lengths.cumsum(dim=1)
    total = ends[:, -1:].clamp(max=max_tokens - 1)  # (B, 1) tokens without <s>
    column = torch.arange(int(total.max()), device=histories.device).expand(len(histories), -1).contiguous()  # (B, T-1)
    inside = column < total
    at = torch.searchsorted(ends, column, right=True).clamp(max=histories.shape[1] - 1)  # whose token it is
    within = column - (ends - lengths).gather(1, at)
    slots = (histories.gather(1, at) * items.input_ids.shape[1] + within).masked_fill(~inside, 0)

    def row(values: Tensor, first: int, pad: int) -> Tensor:
        return torch.nn.functional.pad(values.long().masked_fill(~inside, pad), (1, 0), value=first)

    return TokenBatch(
        row(items.input_ids.flatten()[slots], bos_token_id, pad_token_id),
        row(items.token_types.flatten()[slots], SEQUENCE, PAD),
        row(at + 1, 0, pad_position),
        torch.nn.functional.pad(inside, (1, 0), value=True),
        row(slots, -1, -1),
    )


def chunks(lengths: Tensor, multiple: int, budget: int) -> Iterator[Tensor]:
    """Indices `(b,)` of sequences of similar length, longest first, so that little of a batch is padding.

    Args:
        lengths: `(Q,)` tokens of each sequence.
        multiple: a batch is padded to a multiple of it.
        budget: tokens of a batch, padding included; a sequence that is longer is a batch of its own.
    """
    order = lengths.argsort(descending=True, stable=True)
    widths = (-(-lengths[order] // multiple) * multiple).cpu()
    at = 0
    while at < len(widths):
        similar = int((widths[at:] > widths[at] * SIMILAR).sum())
        enough = -(-SMALLEST // int(widths[at]))  # a batch of few tokens costs more than its padding would
        count = max(1, min(max(similar, enough), budget // int(widths[at])))
        yield order[at : at + count]
        at += count

"""Whole-word masking for the masked language model (BERT, arXiv:1810.04805, section 3.1; Recformer, section 2.3.1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

IGNORED = -100  # label of a token that is not asked for


class MaskedTokens(NamedTuple):
    """`input_ids (B, T)` with holes, and `labels (B, T)`: what stood there, `IGNORED` elsewhere."""

    input_ids: Tensor
    labels: Tensor


def mask_words(
    input_ids: Tensor, words: Tensor, *, mask_token_id: int, vocab_size: int, probability: float = 0.15
) -> MaskedTokens:
    """A copy that asks for each word with the given probability, all its tokens or none, and for at least one per row.

    Of the tokens asked for, 80 % become the mask token, 10 % a random token, and 10 % stay as they are.

    Args:
        input_ids: `(B, T)`.
        words: `(B, T)` number of the word a token belongs to, from 0, unlike for different words of a row; -1 where a
            token is no part of a word (padding, `<s>`) and is left alone.
        mask_token_id: of the tokenizer.
        vocab_size: V; random tokens are drawn from `0..V-1`.
        probability: share of the words, so on average also of the tokens.
    """
    device, inside = input_ids.device, words >= 0
    draw = torch.rand(input_ids.shape, device=device).gather(1, words.clamp(min=0))  # (B, T) one draw for a whole word
    draw = draw.masked_fill(~inside, 2.0)
    chosen = inside & ((draw < probability) | (draw == draw.amin(dim=1, keepdim=True)))
    fate = torch.rand(input_ids.shape, device=device)
    random = torch.randint(vocab_size, input_ids.shape, device=device, dtype=input_ids.dtype)
    masked = torch.where(chosen & (fate < 0.8), mask_token_id, input_ids)
    masked = torch.where(chosen & (fate >= 0.9), random, masked)
    return MaskedTokens(masked, torch.where(chosen, input_ids, IGNORED))


def number_words(word_ids: Tensor, items: Tensor) -> Tensor:
    """Words of an item (`word_ids (B, T)`, from 0, -1 outside) numbered within the row, `(B, T)`.

    `items (B, T)` tells which item of the row a token belongs to: a word starts where either number changes.
    """
    inside = word_ids >= 0
    same = (word_ids[:, 1:] == word_ids[:, :-1]) & (items[:, 1:] == items[:, :-1])
    starts = inside & ~torch.nn.functional.pad(same, (1, 0))
    return torch.where(inside, starts.long().cumsum(dim=1) - 1, -1)

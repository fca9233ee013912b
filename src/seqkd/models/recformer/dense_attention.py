"""Longformer's attention for sequences so short that its windows do not pay: the same numbers, fewer operations.

Transformers cuts a sequence into overlapping windows and projects every token a second time for the few that are
global. Here the window is a mask on plain attention. Only `<s>` is global, so what it sees is projected after
averaging instead of before: `q (W x_j)` is `(q W) x_j`, and `sum a_j (V x_j)` is `V (sum a_j x_j)`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.longformer.modeling_longformer import (
    LongformerEncoder,
    LongformerLayer,
    LongformerSelfAttention,
)

LONGEST = 512  # tokens; beyond, a mask over all pairs costs more than windows


def encode(encoder: LongformerEncoder, states: Tensor, present: Tensor, windows: list[int]) -> Tensor:
    """Hidden states of the last layer `(B, T, D)`, as the encoder itself gives them with global attention on token 0.

    Args:
        states: `(B, T, D)` embeddings.
        present: `(B, T)` True for tokens, False for padding.
        windows: tokens that a token sees in each layer, half of them on either side.
    """
    place = torch.arange(states.shape[1], device=states.device)
    apart = (place[:, None] - place).abs()  # (T, T)
    for layer, window in zip(encoder.layer, windows, strict=True):
        near = (apart <= window // 2) | (place == 0)  # all see <s>
        context = _context(layer.attention.self, states, (near & present[:, None, :])[:, None])
        overview = _sees_all(layer.attention.self, states, present)
        states = _rest(layer, torch.cat([overview[:, None].to(context), context[:, 1:]], dim=1), states)
    return states


def local(layer: LongformerLayer, states: Tensor, seen: Tensor) -> Tensor:
    """States after one layer without a global token, `(B, T, D)`; `seen (B, 1, T, T)`: which tokens a token sees."""
    return _rest(layer, _context(layer.attention.self, states, seen), states)


def _rest(layer: LongformerLayer, context: Tensor, states: Tensor) -> Tensor:
    attended = layer.attention.output(context, states)
    return layer.output(layer.intermediate(attended), attended)


def _context(attention: LongformerSelfAttention, states: Tensor, seen: Tensor) -> Tensor:
    """What every token takes from those it sees, `(B, T, D)`."""
    heads = (*states.shape[:2], attention.num_heads, attention.head_dim)
    query, key, value = (
        project(states).view(heads).transpose(1, 2) for project in (attention.query, attention.key, attention.value)
    )  # (B, h, T, d)
    # by hand: on a CPU the backward pass of scaled_dot_product_attention takes twice the time of these three lines
    scores = (query * attention.head_dim**-0.5) @ key.transpose(2, 3)  # (B, h, T, T)
    share = scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(dim=3, dtype=torch.float32)
    share = F.dropout(share, attention.dropout, attention.training)
    return (share.to(value) @ value).transpose(1, 2).flatten(2)


def _sees_all(attention: LongformerSelfAttention, states: Tensor, present: Tensor) -> Tensor:
    """What the global token takes from all others, `(B, D)`."""
    query = attention.query_global(states[:, 0]).unflatten(1, (attention.num_heads, -1))  # (B, h, d)
    key = attention.key_global.weight.unflatten(0, (attention.num_heads, -1))  # (h, d, D)
    value = attention.value_global.weight.unflatten(0, (attention.num_heads, -1))
    query = query * attention.head_dim**-0.5
    asked = torch.einsum("bhd,hdx->bhx", query, key)  # (B, h, D)
    bias = (query * attention.key_global.bias.unflatten(0, (attention.num_heads, -1))).sum(dim=2, keepdim=True)
    scores = asked @ states.transpose(1, 2).to(asked) + bias  # (B, h, T)
    share = scores.masked_fill(~present[:, None], torch.finfo(scores.dtype).min).float().softmax(dim=2)
    share = F.dropout(share, attention.dropout, attention.training).to(states)
    taken = torch.einsum("bhx,hdx->bhd", (share @ states).to(value), value)
    return taken.flatten(1) + attention.value_global.bias

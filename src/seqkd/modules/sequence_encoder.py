"""The causal Transformer encoder of SASRec and UniSRec, over packed rows that hold several sequences each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dropout import Dropout

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}  # gelu is the exact one, with erf
NORM_STYLES = ("post", "pre")


def causal_mask(sequence_ids: Tensor, *, attend_padding: bool = False) -> Tensor:
    """Which slot may read which, `(B, 1, H, H)` bool: earlier slots of the same sequence, and itself.

    Args:
        sequence_ids: `(B, H)`; slots of a row with equal ids belong together, 0 is padding.
        attend_padding: every earlier slot may be read, padding too (one sequence per row, as in the first SASRec code).
    """
    length = sequence_ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=sequence_ids.device).tril()
    if attend_padding:
        return causal.expand(len(sequence_ids), 1, length, length)
    same = sequence_ids[:, :, None] == sequence_ids[:, None, :]  # (B, H, H)
    return (same & causal)[:, None]


class Attention(nn.Module):
    """Multi-head self-attention with the three input projections in one matrix, rows ordered query, key, value."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = states.shape
        qkv = self.qkv(states).view(batch, length, 3, self.num_heads, width // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, H, D / heads)
        dropout = self.dropout.p if self.training else 0.0
        if dropout and states.device.type == "cpu":  # torch's own draws one Bernoulli variable at a time there
            scores = (query * key.shape[-1] ** -0.5) @ key.transpose(2, 3)  # (B, heads, H, H)
            weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1, dtype=torch.float32)
            mixed = self.dropout(weights.to(value.dtype)) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        return self.dense(mixed.transpose(1, 2).reshape(batch, length, width))


class FeedForward(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, hidden_size: int, intermediate_size: int, hidden_act: str) -> None:
        super().__init__()
        self.dense_1 = nn.Linear(hidden_size, intermediate_size)
        self.activation = ACTIVATIONS[hidden_act]()
        self.dense_2 = nn.Linear(intermediate_size, hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        return self.dense_2(self.activation(self.dense_1(states)))


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each with dropout and a residual; layer norm after the sum (post) or before (pre)."""

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        *,
        hidden_dropout: float,
        attention_dropout: float,
        hidden_act: str,
        layer_norm_eps: float,
        norm_style: str,
    ) -> None:
        super().__init__()
        self.pre_norm = norm_style == "pre"
        self.attention = Attention(hidden_size, num_heads, attention_dropout)
        self.attention_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.feed_forward = FeedForward(hidden_size, intermediate_size, hidden_act)
        self.feed_forward_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = Dropout(hidden_dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        if self.pre_norm:
            states = states + self.dropout(self.attention(self.attention_norm(states), mask))
            return states + self.dropout(self.feed_forward(self.feed_forward_norm(states)))
        states = self.attention_norm(states + self.dropout(self.attention(states, mask)))
        return self.feed_forward_norm(states + self.dropout(self.feed_forward(states)))


class SequenceEncoder(nn.Module):
    """A stack of encoder layers (RecBole's SASRec by default).

    Args:
        hidden_size: D; a multiple of `num_heads`.
        num_layers: layers, each with `num_heads` heads and a feed-forward of `intermediate_size`.
        hidden_dropout: after attention and after feed-forward.
        attention_dropout: on attention weights.
        hidden_act: `gelu` (erf) or `relu`.
        layer_norm_eps: epsilon of every layer norm.
        norm_style: `post` or `pre`.
    """

    def __init__(
        self,
        hidden_size: int,
        num_layers: int = 2,
        num_heads: int = 2,
        intermediate_size: int = 256,
        *,
        hidden_dropout: float = 0.5,
        attention_dropout: float = 0.5,
        hidden_act: str = "gelu",
        layer_norm_eps: float = 1e-12,
        norm_style: str = "post",
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(
                hidden_size,
                num_heads,
                intermediate_size,
                hidden_dropout=hidden_dropout,
                attention_dropout=attention_dropout,
                hidden_act=hidden_act,
                layer_norm_eps=layer_norm_eps,
                norm_style=norm_style,
            )
            for _ in range(num_layers)
        )

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """`(B, H, D)` states and `(B, 1, H, H)` mask (see `causal_mask`) -> `(B, H, D)`."""
        for layer in self.layers:
            states = layer(states, mask)
        return states

"""Configuration of SASRec, with the switches in which its implementations differ."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from huggingface_hub.dataclasses import strict

from ...errors import ConfigError
from ...modules.sequence_encoder import ACTIVATIONS, NORM_STYLES
from ...recommenders.configuration import RecommenderConfig

PADDING_SIDES = ("right", "left")


@strict
class SASRecConfig(RecommenderConfig):
    """SASRec (arXiv 1808.09781); the defaults are RecBole's.

    Args:
        num_hidden_layers: Transformer layers.
        num_attention_heads: heads of each; must divide `hidden_size`.
        intermediate_size: width of the feed-forward layers.
        hidden_dropout_prob: dropout on embeddings, attention output and feed-forward output.
        attention_probs_dropout_prob: dropout on attention weights.
        hidden_act: `gelu` (erf) or `relu`.
        layer_norm_eps: epsilon of every layer norm.
        norm_style: layer norm after each residual sum (`post`) or before each block (`pre`).
        embedding_norm: layer norm on the embeddings (RecBole).
        final_norm: layer norm on the output (the original SASRec).
        padding_side: `right` numbers positions 0, 1, ... from the oldest item; `left` numbers them so that the newest
            item has position H, and keeps position 0 for padding (the original SASRec).
        attend_padding: padding can be read (the original SASRec); needs `padding_side="left"`, turns packing off.
        scale_embedding: multiply item embeddings by the square root of `hidden_size` (the original SASRec).
        mask_padding_logit: leave the padding item out of the softmax; False is RecBole's loss.
        item_projection_size: P, width of the teacher space from which new items can be projected into the item table
            (see `seqkd.fit_item_projection`, which sets it); 0 without a projection.
    """

    model_type = "seqkd_sasrec"

    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    intermediate_size: int = 256
    hidden_dropout_prob: int | float = 0.5
    attention_probs_dropout_prob: int | float = 0.5
    hidden_act: str = "gelu"
    layer_norm_eps: int | float = 1e-12
    norm_style: str = "post"
    embedding_norm: bool = True
    final_norm: bool = False
    padding_side: str = "right"
    attend_padding: bool = False
    scale_embedding: bool = False
    mask_padding_logit: bool = True
    item_projection_size: int = 0

    def check(self) -> None:
        super().check()
        for name in ("num_hidden_layers", "num_attention_heads", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.item_projection_size < 0:
            raise ConfigError(f"item_projection_size must be at least 0, got {self.item_projection_size}.")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}.")
        for name, allowed in (
            ("hidden_act", tuple(ACTIVATIONS)),
            ("norm_style", NORM_STYLES),
            ("padding_side", PADDING_SIDES),
        ):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}.")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"num_attention_heads={self.num_attention_heads} does not divide hidden_size={self.hidden_size}. "
                "Take a hidden_size that is a multiple of the heads."
            )
        if not self.layer_norm_eps > 0:
            raise ConfigError(f"layer_norm_eps must be above 0, got {self.layer_norm_eps}.")
        if self.attend_padding and self.padding_side != "left":
            raise ConfigError('attend_padding=True needs padding_side="left": padding after the items is never read.')

"""Configuration of UniSRec, the sequence teacher that reads items as text."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from huggingface_hub.dataclasses import strict

from ...errors import ConfigError
from ...modules.sequence_encoder import ACTIVATIONS
from ...recommenders.configuration import RecommenderConfig


@strict
class UniSRecConfig(RecommenderConfig):
    """UniSRec (KDD 2022, arXiv:2206.05941); the defaults are those of the authors' `props/UniSRec.yaml`.

    Args:
        plm_size: P, width of an item's text vector (768 for BERT, 384 for MiniLM).
        num_hidden_layers: Transformer layers.
        num_attention_heads: heads of a layer; they divide `hidden_size`.
        intermediate_size: width of the feed-forward part.
        hidden_act: `gelu` (erf) or `relu`.
        layer_norm_eps: epsilon of every layer norm.
        hidden_dropout_prob: after the input norm, the attention and the feed-forward part.
        attention_probs_dropout_prob: on the attention weights.
        num_experts: E, whitening experts of the adaptor.
        adaptor_dropout_prob: share of the text coordinates each expert drops in training.
        noisy_gating: add noise to the gate of the experts in training.
        noise_epsilon: smallest scale of that noise.
        use_item_embedding: transductive: add a learned vector per item. Without it an item is its text alone.
        freeze_encoder: train only the adaptor, the input norm and the item vectors (the authors' `fix_enc`).
        seq_seq_weight: lambda of the sequence-sequence contrast in pre-training.
        item_drop_ratio: share of a sequence's items, or of its items' words, that an augmentation drops.
        item_drop_probability: share of the batches augmented by dropping items; the others drop words.
        legacy_false_negative: an item that is the target of two queries counts `exp(0) = 1` in the denominator, as in
            the authors' code; False leaves it out.
    """

    model_type = "seqkd_unisrec"

    hidden_size: int = 300
    similarity: str = "cosine"
    temperature: int | float = 0.07
    plm_size: int = 768
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    intermediate_size: int = 256
    hidden_act: str = "gelu"
    hidden_dropout_prob: int | float = 0.5
    attention_probs_dropout_prob: int | float = 0.5
    layer_norm_eps: int | float = 1e-12
    num_experts: int = 8
    adaptor_dropout_prob: int | float = 0.2
    noisy_gating: bool = True
    noise_epsilon: int | float = 0.01
    use_item_embedding: bool = False
    freeze_encoder: bool = False
    seq_seq_weight: int | float = 1e-3
    item_drop_ratio: int | float = 0.2
    item_drop_probability: int | float = 0.9
    legacy_false_negative: bool = True

    def check(self) -> None:
        super().check()
        for name in ("plm_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "num_experts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size={self.hidden_size} must be a multiple of num_attention_heads={self.num_attention_heads}."
            )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "adaptor_dropout_prob", "item_drop_ratio"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}.")
        if not 0 <= self.item_drop_probability <= 1:
            raise ConfigError(f"item_drop_probability must be between 0 and 1, got {self.item_drop_probability}.")
        if self.hidden_act not in ACTIVATIONS:
            raise ConfigError(f"hidden_act must be one of {tuple(ACTIVATIONS)}, got {self.hidden_act!r}.")
        if self.similarity != "cosine":
            raise ConfigError(f"UniSRec compares by cosine, got similarity={self.similarity!r}. Leave it at 'cosine'.")

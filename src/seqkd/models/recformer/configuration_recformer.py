"""Configuration of Recformer, the teacher that reads a history as one long text."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from huggingface_hub.dataclasses import strict
from transformers import LongformerConfig

from ...errors import ConfigError
from ...recommenders.configuration import RecommenderConfig

POOLERS = ("cls", "mean")


@strict
class RecformerConfig(RecommenderConfig):
    """Recformer (KDD 2023, arXiv:2305.13731); the defaults are the authors': Longformer-base with a window of 64.

    Args:
        vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, hidden_act,
            hidden_dropout_prob, attention_probs_dropout_prob, layer_norm_eps: as in Longformer.
        attention_window: tokens a token sees, half of them on either side; one even number, or one for each layer.
        max_token_positions: rows of the table of token positions; the first is `pad_token_id + 1`.
        pad_token_id: of the tokenizer.
        bos_token_id: the token in front of a sequence, `<s>` or `[CLS]`, the only one that sees all others.
        mask_token_id: what stands for a masked word, `<mask>` or `[MASK]`; only pre-training reads it.
        token_type_size: `<s>`, attribute name, attribute value, padding.
        max_item_embeddings: rows of the table of item positions, one more than `max_position_embeddings`: `<s>`.
        max_attr_num: attributes read of an item.
        max_attr_length: tokens read of an attribute, its name included.
        max_item_length: tokens kept of an item; by default all that the two above allow.
        max_token_num: tokens read of a history, `<s>` included; older ones are cut off.
        pooler_type: a sequence is its `<s>` (`cls`) or the `mean` of its tokens.
        encoder_dtype: `float32`, or `bfloat16` to read tokens at half the cost; scores and losses stay in float32.
        fix_word_embedding: leave the word embeddings as the language model learned them.
        mlm_weight: of the masked language model in pre-training.
        mlm_probability: share of the words that are masked for it.
    """

    model_type = "seqkd_recformer"

    vocab_size: int = 50265
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: int | float = 0.1
    attention_probs_dropout_prob: int | float = 0.1
    layer_norm_eps: int | float = 1e-5
    attention_window: int | list[int] = 64
    max_token_positions: int = 4098
    pad_token_id: int | None = 1
    bos_token_id: int = 0
    mask_token_id: int = 50264
    token_type_size: int = 4
    max_item_embeddings: int = 51
    max_attr_num: int = 3
    max_attr_length: int = 32
    max_item_length: int | None = None
    max_token_num: int = 1024
    pooler_type: str = "cls"
    similarity: str = "cosine"
    temperature: int | float = 0.05
    encoder_dtype: str = "float32"
    fix_word_embedding: bool = True
    mlm_weight: int | float = 0.1
    mlm_probability: int | float = 0.15

    @property
    def item_length(self) -> int:
        """L, tokens kept of an item."""
        return self.max_item_length or self.max_attr_num * self.max_attr_length

    @property
    def attention_windows(self) -> list[int]:
        """The window of every layer."""
        window = self.attention_window
        return [window] * self.num_hidden_layers if isinstance(window, int) else list(window)

    def longformer_config(self) -> LongformerConfig:
        """What transformers' own encoder is built from."""
        same = (
            *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
            *("hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps"),
            *("initializer_range", "pad_token_id", "bos_token_id"),
        )
        return LongformerConfig(
            **{name: getattr(self, name) for name in same},
            attention_window=self.attention_windows,
            max_position_embeddings=self.max_token_positions,
            type_vocab_size=self.token_type_size,
        )

    def check(self) -> None:
        super().check()
        sizes = ("vocab_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        for name in (*sizes, "max_attr_num", "max_attr_length", "item_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size={self.hidden_size} must be a multiple of num_attention_heads={self.num_attention_heads}."
            )
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}.")
        if self.encoder_dtype not in ("float32", "bfloat16"):
            raise ConfigError(f"encoder_dtype must be 'float32' or 'bfloat16', got {self.encoder_dtype!r}.")
        if not 0 < self.mlm_probability < 1:
            raise ConfigError(f"mlm_probability must be above 0 and below 1, got {self.mlm_probability}.")
        if self.token_type_size < 4:
            raise ConfigError(f"token_type_size must be 4 (<s>, name, value, pad) or more, got {self.token_type_size}.")
        windows = self.attention_windows
        if len(windows) != self.num_hidden_layers or any(window < 2 or window % 2 for window in windows):
            raise ConfigError(
                f"attention_window must be an even number, or one for each of the {self.num_hidden_layers} layers, "
                f"got {self.attention_window}."
            )
        if self.max_item_embeddings != self.max_position_embeddings + 1:
            raise ConfigError(
                f"max_item_embeddings={self.max_item_embeddings} must be max_position_embeddings + 1 = "
                f"{self.max_position_embeddings + 1}: the items of a history, and <s>."
            )
        for name in ("pad_token_id", "bos_token_id"):
            if not 0 <= (-1 if getattr(self, name) is None else getattr(self, name)) < self.vocab_size:
                raise ConfigError(f"{name} must be within 0..{self.vocab_size - 1}, got {getattr(self, name)}.")
        room = self.max_token_positions - (self.pad_token_id or 0) - 1
        if not 2 <= self.max_token_num <= room:
            raise ConfigError(
                f"max_token_num must be at least 2 and at most {room}, the positions that max_token_positions="
                f"{self.max_token_positions} leaves, got {self.max_token_num}."
            )
        if self.pooler_type not in POOLERS:
            raise ConfigError(f"pooler_type must be one of {POOLERS}, got {self.pooler_type!r}.")
        if self.similarity != "cosine":
            raise ConfigError(f"Recformer compares by cosine, got similarity={self.similarity!r}. Leave it as it is.")


@strict
class CausalRecformerConfig(RecformerConfig):
    """Configuration of `CausalRecformerModel`: the fields of Recformer, those of windows and `<s>` without effect.

    Args:
        use_item_embedding: transductive: a learned vector per item is added to its text where items are ranked.
    """

    model_type = "seqkd_causal_recformer"

    use_item_embedding: bool = False

    def check(self) -> None:
        super().check()
        room = self.max_token_positions - (self.pad_token_id or 0) - 1
        if self.item_length > room:  # items are read whole, whatever max_token_num
            raise ConfigError(
                f"an item may have {self.item_length} tokens, but max_token_positions={self.max_token_positions} "
                f"leaves {room} positions. Set max_item_length={room} or less, or more max_token_positions."
            )

"""What the configuration of every recommender holds."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

import difflib
from dataclasses import fields
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..errors import ConfigError

SIMILARITIES = ("dot", "cosine")
LOSSES = ("softmax", "sampled_softmax", "bce", "gbce", "bpr")
# What transformers reads of a configuration, or sets in it, without a field for it; so it does with `_names`.
KEYS_OF_TRANSFORMERS = (
    "auto_map",
    "custom_pipelines",
    "distributed_config",
    "fusion_config",
    "gradient_checkpointing",
    "model_type",
    "quantization_config",
    "tie_word_embeddings",
    "tokenizer_class",
    "transformers_weights",
    *("bos_token_id", "eos_token_id", "use_cache"),  # set by its Trainer
)


@strict
class RecommenderConfig(PreTrainedConfig):
    """Catalogue, width and training objective, shared by all recommenders.

    Args:
        num_items: I, real items; the table has one more row, the padding item 0.
        hidden_size: D, width of query and item embeddings.
        max_position_embeddings: H, the longest history a model reads, in items.
        similarity: `dot` or `cosine` between query and item embeddings.
        temperature: the similarity is divided by it; cosine wants about 0.07.
        loss_type: `softmax` over the catalogue, `sampled_softmax` (logQ corrected), `bce`, `gbce` or `bpr`.
        num_negatives: sampled negatives per query, for all losses but `softmax`.
        gbce_t: calibration t of gSASRec, 0 (plain BCE) to 1 (fully calibrated).
    """

    model_type = "seqkd_recommender"
    losses: ClassVar[tuple[str, ...]] = LOSSES  # what `loss_type` may be; a model with a loss of its own says so

    num_items: int = 1
    hidden_size: int = 64
    max_position_embeddings: int = 50
    similarity: str = "dot"
    temperature: int | float = 1.0
    loss_type: str = "softmax"
    num_negatives: int = 256
    gbce_t: int | float = 0.75
    initializer_range: float = 0.02
    pad_token_id: int | None = 0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.check_names()
        self.check()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers, which reads every config.json with it; errors name the file.

        Raises:
            ConfigError: a field does not exist, perhaps yet, or is out of range.
        """
        try:
            return super().from_dict(config_dict, **kwargs)
        except ConfigError as error:
            name = kwargs.get("name_or_path")  # which only AutoConfig passes on
            raise ConfigError(f"{name}: config.json: {error}" if name else f"config.json: {error}") from error

    def check_names(self) -> None:
        """Refuse what is no field: transformers keeps any name, so that a misspelt one would go unnoticed.

        What it has kept is looked at, not what was given: names of its own it renames or drops, each version others.

        Raises:
            ConfigError: naming the closest field.
        """
        known = {item.name for item in fields(self)}
        for name in vars(self):
            if name in known or name in KEYS_OF_TRANSFORMERS or name.startswith("_"):
                continue
            close = difflib.get_close_matches(name, known | self.attribute_map.keys(), n=1)
            hint = f"Did you mean {close[0]!r}?" if close else "Leave it out, or update seqkd if a later one wrote it."
            raise ConfigError(f"{type(self).__name__} has no field {name!r} in this version of seqkd. {hint}")

    def check(self) -> None:
        """Subclasses add their own checks; not a `validate_*`, which would wrap the error in another type.

        Raises:
            ConfigError: a field is out of range.
        """
        for name in ("num_items", "hidden_size", "max_position_embeddings", "num_negatives"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.similarity not in SIMILARITIES:
            raise ConfigError(f"similarity must be one of {SIMILARITIES}, got {self.similarity!r}.")
        if self.loss_type not in self.losses:
            raise ConfigError(f"loss_type must be one of {self.losses}, got {self.loss_type!r}.")
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be above 0, got {self.temperature}.")

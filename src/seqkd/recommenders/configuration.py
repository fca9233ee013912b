"""What the configuration of every recommender holds."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from ..errors import ConfigError

SIMILARITIES = ("dot", "cosine")
LOSSES = ("softmax", "sampled_softmax", "bce", "gbce", "bpr")


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
        self.check()

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

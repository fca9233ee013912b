"""What the configurations of factorisation machines share."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict

from ..errors import ConfigError
from .user_configuration import UserRecommenderConfig


@strict
class FactorisationConfig(UserRecommenderConfig):
    """Fields and loss of FM and DeepFM.

    Args:
        hidden_size: D, width of a field's vector.
        history_window: newest items of a history that are read; another name of `max_position_embeddings`.
        share_item_table: a history reads the items' own vectors; False gives it a table of its own, as in RecBole.
            Shared by default: with few purchases per item two tables overfit (the ablation of SASRec, arXiv
            1808.09781), a new item can be read at once, and the model is smaller.
        num_attributes: values of all attributes of items together (brands, categories, a domain, ...); 0 without.
        num_attribute_fields: A, attributes of an item; 0 without.
        loss_type, num_negatives: as in `RecommenderConfig`, but BCE with one negative for each pair.
    """

    model_type = "seqkd_factorisation"
    attribute_map: ClassVar[dict[str, str]] = {"history_window": "max_position_embeddings"}

    share_item_table: bool = True
    num_attributes: int = 0
    num_attribute_fields: int = 0
    loss_type: str = "bce"

    def check(self) -> None:
        super().check()
        if self.similarity != "dot":
            raise ConfigError(f'similarity must be "dot": that is how fields interact; got {self.similarity!r}.')
        for name in ("num_attributes", "num_attribute_fields"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, got {getattr(self, name)}.")
        if (self.num_attributes > 0) != (self.num_attribute_fields > 0):
            raise ConfigError(
                "num_attributes (values) and num_attribute_fields (attributes of an item) go together, got "
                f"{self.num_attributes} and {self.num_attribute_fields}. Give both, or neither."
            )

    def field_settings(self) -> dict[str, Any]:
        """The arguments of `FieldEmbeddings`."""
        return {
            "num_users": self.num_users,
            "num_items": self.num_items,
            "size": self.hidden_size,
            "share_item_table": self.share_item_table,
            "num_attributes": self.num_attributes,
            "num_attribute_fields": self.num_attribute_fields,
        }

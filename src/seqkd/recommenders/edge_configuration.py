"""What the configuration of a recommender that holds its interactions has beside the rest."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from huggingface_hub.dataclasses import strict

from ..errors import ConfigError
from .user_configuration import UserRecommenderConfig


@strict
class EdgeRecommenderConfig(UserRecommenderConfig):
    """Interactions that are part of the model.

    Args:
        num_edges: E, distinct interactions; `set_edges` sets it.
    """

    model_type = "seqkd_edge_recommender"

    num_edges: int = 0

    def check(self) -> None:
        super().check()
        if self.num_edges < 0:
            raise ConfigError(f"num_edges must be at least 0, got {self.num_edges}.")

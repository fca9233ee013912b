"""What the configuration of a recommender that knows its users holds beside the rest."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from huggingface_hub.dataclasses import strict

from ..errors import ConfigError
from .configuration import RecommenderConfig


@strict
class UserRecommenderConfig(RecommenderConfig):
    """Users, and how the model is trained on pairs.

    Args:
        num_users: U, users known from training; the user table has one more row, the unknown user 0.
        loss_type, num_negatives: as in `RecommenderConfig`, but BPR with one negative for each pair.
    """

    model_type = "seqkd_user_recommender"

    num_users: int = 1
    loss_type: str = "bpr"
    num_negatives: int = 1

    def check(self) -> None:
        super().check()
        if self.num_users < 1:
            raise ConfigError(f"num_users must be at least 1, got {self.num_users}.")

"""What the configuration of a recommender with several heads holds beside the rest."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from huggingface_hub.dataclasses import strict

from ..errors import ConfigError
from .user_configuration import UserRecommenderConfig


@strict
class MultiHeadConfig(UserRecommenderConfig):
    """Several ways of scoring over the same tables.

    Args:
        heads: their names. With one head it is a plain model: a baseline, or what is kept of several.
        head: the one that answers; empty: the first.
    """

    model_type = "seqkd_multi_head_recommender"

    heads: list[str] | tuple[str, ...] = ("bpr",)
    head: str = ""

    def check(self) -> None:
        super().check()
        if not self.heads or len(set(self.heads)) < len(self.heads):
            raise ConfigError(f"heads must be names, at least one and each once, got {list(self.heads)}.")
        if not self.head:
            self.head = self.heads[0]
        if self.head not in self.heads:
            raise ConfigError(f"there is no head {self.head!r}; the heads are {list(self.heads)}.")

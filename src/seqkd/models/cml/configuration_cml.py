"""Configuration of collaborative metric learning."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from ...errors import ConfigError
from ...recommenders.user_configuration import UserRecommenderConfig


@strict
class CMLConfig(UserRecommenderConfig):
    """CML (Hsieh et al., WWW 2017): users and items in the unit ball, the nearest items are recommended.

    The paper's regularisation by covariance is left out: it is about a batch, not about pairs, so that it would change
    with how a step is carried.

    Args:
        margin: m of the hinge, in squared distances, which lie between 0 and 4 in the unit ball.
        rank_weight: weigh a pair by `log(rank + 1)` of its positive, the rank estimated from the share of its negatives
            that violate the margin (eq. 3 and section 3.3, "approximated ranking weight").
        num_negatives: negatives of each pair; the estimate of a rank wants some ten at least.
        initializer_range: standard deviation of the first coordinates; 0.1 starts well inside the ball, or near its
            surface where D is about 100.
        loss_type: `hinge` is all there is.
    """

    model_type = "seqkd_cml"
    losses: ClassVar[tuple[str, ...]] = ("hinge",)

    margin: int | float = 0.5
    rank_weight: bool = True
    num_negatives: int = 20
    initializer_range: float = 0.1
    loss_type: str = "hinge"

    def check(self) -> None:
        super().check()
        if not self.margin > 0:
            raise ConfigError(f"margin must be above 0, got {self.margin}.")
        if self.similarity != "dot":
            raise ConfigError(f'similarity must be "dot": CML ranks by distance already; got {self.similarity!r}.')

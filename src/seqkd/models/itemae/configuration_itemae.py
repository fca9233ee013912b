"""Configuration of the item autoencoder."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from ...errors import ConfigError
from ...recommenders.edge_configuration import EdgeRecommenderConfig


@strict
class ItemAEConfig(EdgeRecommenderConfig):
    """An item-based autoencoder (AutoRec, WWW 2015), denoising and with the multinomial of arXiv 1802.05814.

    Args:
        hidden_size: D, width of an item's code; the paper's AutoRec takes 500, its shape is U -> D -> U.
        dropout_prob: share of an item's users that the encoder does not see, anew in each step.
        item_prior: rank items for a user by Bayes' rule, `p(u | i) |N_i|`. Without, by the bare logit: the softmax is
            over users, so that logits of two items have no common scale, and say nothing of how popular they are.
        loss_type: `multinomial` is all there is.
    """

    model_type = "seqkd_itemae"
    losses: ClassVar[tuple[str, ...]] = ("multinomial",)

    hidden_size: int = 500
    dropout_prob: int | float = 0.5
    item_prior: bool = True
    loss_type: str = "multinomial"

    def check(self) -> None:
        super().check()
        if not 0 <= self.dropout_prob < 1:
            raise ConfigError(f"dropout_prob must be at least 0 and below 1, got {self.dropout_prob}.")
        if self.similarity != "dot":
            raise ConfigError(f'similarity must be "dot": the decoder is linear at its end; got {self.similarity!r}.')

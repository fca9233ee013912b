"""Configuration of Mult-VAE."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from typing import ClassVar

from huggingface_hub.dataclasses import strict

from ...errors import ConfigError
from ...recommenders.edge_configuration import EdgeRecommenderConfig


@strict
class MultVAEConfig(EdgeRecommenderConfig):
    """Mult-VAE and Mult-DAE (WWW 2018, arXiv 1802.05814), with the paper's defaults: I -> 600 -> 200 -> 600 -> I.

    Args:
        hidden_size: D, width of the hidden layers of encoder and decoder.
        latent_size: K, width of the representation of a user.
        variational: sample the representation and pay its divergence (Mult-VAE); False is the denoising autoencoder
            (Mult-DAE), one vector for each user.
        dropout_prob: share of a user's items that the encoder does not see, anew in each step.
        kl_weight: beta at the end of annealing, weight of the divergence (the paper finds 0.2 on MovieLens).
        anneal_epochs: epochs in which beta rises from 0, evenly. An epoch of pairs visits a user once for each of his
            items, so it is many of the paper's epochs, which visit each once.
        max_position_embeddings: newest items that are read of a user who is not in training.
        loss_type: `multinomial`, the paper's, is all there is.
    """

    model_type = "seqkd_multvae"
    losses: ClassVar[tuple[str, ...]] = ("multinomial",)

    hidden_size: int = 600
    latent_size: int = 200
    variational: bool = True
    dropout_prob: int | float = 0.5
    kl_weight: int | float = 0.2
    anneal_epochs: int = 10
    max_position_embeddings: int = 4096
    loss_type: str = "multinomial"

    def check(self) -> None:
        super().check()
        if self.latent_size < 1:
            raise ConfigError(f"latent_size must be at least 1, got {self.latent_size}.")
        if not 0 <= self.dropout_prob < 1:
            raise ConfigError(f"dropout_prob must be at least 0 and below 1, got {self.dropout_prob}.")
        if not self.kl_weight >= 0:
            raise ConfigError(f"kl_weight must be at least 0, got {self.kl_weight}.")
        if self.anneal_epochs < 0:
            raise ConfigError(f"anneal_epochs must be at least 0, got {self.anneal_epochs}.")
        if self.similarity != "dot":
            raise ConfigError(f'similarity must be "dot": the decoder is linear at its end; got {self.similarity!r}.')

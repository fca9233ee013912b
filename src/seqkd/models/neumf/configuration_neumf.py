"""Configuration of NeuMF."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from huggingface_hub.dataclasses import strict

from ...errors import ConfigError
from ...recommenders.user_configuration import UserRecommenderConfig
from ...recommenders.wide_and_deep_configuration import check_mlp


@strict
class NeuMFConfig(UserRecommenderConfig):
    """NeuMF (WWW 2017, arXiv 1708.05031), with the paper's tower of three layers, each half as wide as the one before.

    Args:
        hidden_size: D, width of a user's and an item's vector in GMF, and again in the MLP.
        mlp_hidden_sizes: H1, H2, ..., widths of the hidden layers.
        dropout_prob: dropout before every hidden layer; the paper has none.
        initializer_range: standard deviation of the first embeddings.
        loss_type, num_negatives: as in `UserRecommenderConfig`, but BCE with four negatives for each pair; `softmax`
            is too dear.
    """

    model_type = "seqkd_neumf"

    mlp_hidden_sizes: list[int] | tuple[int, ...] = (64, 32, 16)
    dropout_prob: int | float = 0.0
    initializer_range: float = 0.01
    loss_type: str = "bce"
    num_negatives: int = 4

    def check(self) -> None:
        super().check()
        check_mlp("NeuMF", self.mlp_hidden_sizes, self.dropout_prob, self.loss_type)
        if self.similarity != "dot":
            raise ConfigError(f'similarity must be "dot": the model learns how pairs match; got {self.similarity!r}.')

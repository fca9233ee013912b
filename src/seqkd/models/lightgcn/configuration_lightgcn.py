"""Configuration of LightGCN."""

# No `from __future__ import annotations` here: `strict` checks only types that are not strings.

from huggingface_hub.dataclasses import strict

from ...errors import ConfigError
from ...recommenders.edge_configuration import EdgeRecommenderConfig


@strict
class LightGCNConfig(EdgeRecommenderConfig):
    """LightGCN (SIGIR 2020, arXiv 2002.02126); the defaults are those of the authors' PyTorch code.

    Args:
        num_layers: K, propagations; the embeddings are the mean of layers 0 to K.
        reg_weight: weight of half the squared norms of a pair's user, item and negative before propagation, a mean
            over pairs. Only with a loss that is computed pair by pair, so not with `softmax`.
        edge_dropout: share of interactions left out of each training step.
        num_edges: E, distinct interactions of the graph; `set_edges` sets it.
        weighted_edges: interactions count differently; `set_edges` sets it.
        initializer_range: standard deviation of the first embeddings.
        max_position_embeddings: newest items that are read of a user who is not in the graph.
    """

    model_type = "seqkd_lightgcn"

    num_layers: int = 3
    reg_weight: int | float = 1e-4
    edge_dropout: int | float = 0.0
    weighted_edges: bool = False
    initializer_range: float = 0.1

    def check(self) -> None:
        super().check()
        if self.num_layers < 1:
            raise ConfigError(f"num_layers must be at least 1, got {self.num_layers}. Without a layer, take MF.")
        if not 0 <= self.edge_dropout < 1:
            raise ConfigError(f"edge_dropout must be at least 0 and below 1, got {self.edge_dropout}.")
        if not self.reg_weight >= 0:
            raise ConfigError(f"reg_weight must be at least 0, got {self.reg_weight}.")
        if self.reg_weight and self.loss_type == "softmax":
            raise ConfigError(
                'loss_type="softmax" is computed over the catalogue, not pair by pair, so reg_weight would be ignored. '
                "Set reg_weight=0 and regularise by the optimizer's weight_decay."
            )

"""What a recommender with a graph keeps of it when a block comes: nothing, everything, or less and less."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ConfigError
from ..models.lightgcn import LightGCNModel
from ..recommenders.edge_recommender import EdgeRecommender

POLICIES = ("cumulative", "decayed", "block")


def renew_edges(model: EdgeRecommender, edges: Tensor, policy: str = "cumulative", *, decay: float = 0.5) -> None:
    """Give a model that has grown to a block that block's edges `(2, E)`.

    The release of CCD has `block`: a user who is not active in it loses all neighbours, and a trained teacher most of
    what it knows (spec ccd 13: Recall@20 on the base block falls from .105 to .033). So the default keeps them.

    Args:
        policy: `cumulative` adds to the edges there are; `decayed` also lets what was there count `decay` times as much
            as before, where the block does not repeat it; `block` replaces them.

    Raises:
        ConfigError: an unknown policy, `decay` outside (0, 1), or `decayed` edges of another model than LightGCN.
    """
    if policy not in POLICIES:
        raise ConfigError(f"the policy of the graph must be one of {POLICIES}, got {policy!r}.")
    if policy == "block":
        return model.set_edges(edges)
    both = torch.cat([model.edges, edges.to(model.edges)], dim=1)
    if policy == "cumulative":
        return model.set_edges(both)
    if not 0 < decay < 1:
        raise ConfigError(f"decay must lie between 0 and 1, got {decay}. To keep all edges as they are: 'cumulative'.")
    if not isinstance(model, LightGCNModel):
        raise ConfigError(f"{type(model).__name__} counts every interaction alike: take 'cumulative' or 'block'.")
    old = torch.ones(model.edges.shape[1]) if model.edge_weights is None else model.edge_weights.cpu()
    weights = torch.cat([decay * old, torch.ones(edges.shape[1])])
    return model.set_edges(both, weights.to(model.edges.device))

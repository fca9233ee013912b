"""LightGCN checkpoints of RecBole and of gusye1234/LightGCN-PyTorch -> configuration and tensors of `LightGCNModel`.

Both functions take a plain state dict (from safetensors, or `torch.load(..., weights_only=True)`) and the interactions
of training, which such a checkpoint does not hold; nothing is ever unpickled here:

    settings, tensors = from_recbole(load_file("lightgcn.safetensors"), edges, num_layers=2)
    model = LightGCNModel(LightGCNConfig(**settings))
    model.load_state_dict(tensors)
    model.set_catalogue(Catalogue(item_ids))  # the external ids, row 1 first, and model.set_users likewise
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...catalogue import PADDING
from ...errors import CheckpointError
from .configuration_lightgcn import LightGCNConfig
from .modeling_lightgcn import LightGCNModel

RECBOLE = ("user_embedding.weight", "item_embedding.weight")
GUSYE = ("embedding_user.weight", "embedding_item.weight")


def from_recbole(
    state_dict: Mapping[str, Tensor], edges: Tensor, *, num_layers: int = 2
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """RecBole's LightGCN. Its padding rows, drawn at random there, become zero; nothing reads them.

    Args:
        edges: `(2, E)` users and items by RecBole's internal ids, which count from 1.
        num_layers: K, not visible in the tensors.

    Raises:
        CheckpointError: a tensor is missing, or there is one that LightGCN does not have.
        DataError: `edges` do not fit the tables.
    """
    users, items = (table.clone() for table in _tables(state_dict, RECBOLE, "RecBole"))
    users[PADDING] = items[PADDING] = 0
    return _ours(users, items, edges, num_layers)


def from_gusye(
    state_dict: Mapping[str, Tensor], edges: Tensor, *, num_layers: int = 3
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The authors' PyTorch LightGCN; `edges (2, E)` by its ids, which count from 0. The rest as above."""
    users, items = (F.pad(table, (0, 0, 1, 0)) for table in _tables(state_dict, GUSYE, "gusye1234"))
    return _ours(users, items, edges + 1, num_layers)


def _tables(state_dict: Mapping[str, Tensor], names: tuple[str, str], whose: str) -> tuple[Tensor, Tensor]:
    if set(state_dict) != set(names):
        raise CheckpointError(
            f"this is no LightGCN checkpoint of {whose}: it holds {sorted(state_dict)[:5]}, not {list(names)}."
        )
    users, items = (state_dict[name] for name in names)
    return users, items


def _ours(users: Tensor, items: Tensor, edges: Tensor, num_layers: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    settings: dict[str, Any] = {
        "num_users": len(users) - 1,
        "num_items": len(items) - 1,
        "hidden_size": users.shape[1],
        "num_layers": num_layers,
    }
    edges = LightGCNModel(LightGCNConfig(**settings), edges).edges  # checked, each pair once
    tensors = {"user_embedding.weight": users, "item_embedding.weight": items, "edges": edges}
    tensors["item_counts"] = edges[1].bincount(minlength=len(items)).float()
    return {**settings, "num_edges": edges.shape[1]}, tensors

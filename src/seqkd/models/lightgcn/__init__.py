"""LightGCN; importing it makes the Auto classes of transformers know it."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel

from ...batches.edges import edges_of
from .configuration_lightgcn import LightGCNConfig
from .modeling_lightgcn import LightGCNModel

AutoConfig.register(LightGCNConfig.model_type, LightGCNConfig)
AutoModel.register(LightGCNConfig, LightGCNModel)

__all__ = ["LightGCNConfig", "LightGCNModel", "edges_of"]

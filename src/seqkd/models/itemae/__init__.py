"""The item autoencoder; importing it makes the Auto classes of transformers know it."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel

from .configuration_itemae import ItemAEConfig
from .modeling_itemae import ItemAEModel

AutoConfig.register(ItemAEConfig.model_type, ItemAEConfig)
AutoModel.register(ItemAEConfig, ItemAEModel)

__all__ = ["ItemAEConfig", "ItemAEModel"]

"""Mult-VAE and Mult-DAE; importing it makes the Auto classes of transformers know them."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel

from .configuration_multvae import MultVAEConfig
from .modeling_multvae import MultVAEModel

AutoConfig.register(MultVAEConfig.model_type, MultVAEConfig)
AutoModel.register(MultVAEConfig, MultVAEModel)

__all__ = ["MultVAEConfig", "MultVAEModel"]

"""NeuMF; importing it makes the Auto classes of transformers know it."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel

from .configuration_neumf import NeuMFConfig
from .modeling_neumf import NeuMFModel

AutoConfig.register(NeuMFConfig.model_type, NeuMFConfig)
AutoModel.register(NeuMFConfig, NeuMFModel)

__all__ = ["NeuMFConfig", "NeuMFModel"]

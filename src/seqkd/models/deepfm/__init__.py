"""DeepFM; importing it makes the Auto classes of transformers know it."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel

from .configuration_deepfm import DeepFMConfig
from .modeling_deepfm import DeepFMModel

AutoConfig.register(DeepFMConfig.model_type, DeepFMConfig)
AutoModel.register(DeepFMConfig, DeepFMModel)

__all__ = ["DeepFMConfig", "DeepFMModel"]

"""Factorisation machine; importing it makes the Auto classes of transformers know it."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel

from .configuration_fm import FMConfig
from .modeling_fm import FMModel

AutoConfig.register(FMConfig.model_type, FMConfig)
AutoModel.register(FMConfig, FMModel)

__all__ = ["FMConfig", "FMModel"]

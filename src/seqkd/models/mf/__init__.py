"""Matrix factorisation; importing it makes the Auto classes of transformers know it."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel

from .configuration_mf import MFConfig
from .modeling_mf import MFModel

AutoConfig.register(MFConfig.model_type, MFConfig)
AutoModel.register(MFConfig, MFModel)

__all__ = ["MFConfig", "MFModel"]

"""ConCF, one model with several objectives; importing it makes the Auto classes of transformers know it."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel

from .configuration_concf import ConCFConfig
from .modeling_concf import ConCFModel

AutoConfig.register(ConCFConfig.model_type, ConCFConfig)
AutoModel.register(ConCFConfig, ConCFModel)

__all__ = ["ConCFConfig", "ConCFModel"]

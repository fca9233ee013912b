"""Collaborative metric learning; importing it makes the Auto classes of transformers know it."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel

from .configuration_cml import CMLConfig
from .modeling_cml import CMLModel

AutoConfig.register(CMLConfig.model_type, CMLConfig)
AutoModel.register(CMLConfig, CMLModel)

__all__ = ["CMLConfig", "CMLModel"]

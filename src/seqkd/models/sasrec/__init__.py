"""SASRec; importing it makes the Auto classes of transformers know it."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel

from .configuration_sasrec import SASRecConfig
from .modeling_sasrec import SASRecModel

AutoConfig.register(SASRecConfig.model_type, SASRecConfig)
AutoModel.register(SASRecConfig, SASRecModel)

__all__ = ["SASRecConfig", "SASRecModel"]

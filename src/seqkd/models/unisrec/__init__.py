"""UniSRec; importing it makes the Auto classes of transformers know it."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForPreTraining

from .configuration_unisrec import UniSRecConfig
from .convert_unisrec import convert
from .modeling_unisrec import UniSRecModel
from .pretraining_unisrec import UniSRecForPretraining, UniSRecPretrainingOutput

AutoConfig.register(UniSRecConfig.model_type, UniSRecConfig)
AutoModel.register(UniSRecConfig, UniSRecModel)
AutoModelForPreTraining.register(UniSRecConfig, UniSRecForPretraining)

__all__ = ["UniSRecConfig", "UniSRecForPretraining", "UniSRecModel", "UniSRecPretrainingOutput", "convert"]

"""UniM²Rec; importing it makes the Auto classes of transformers know it."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForPreTraining

from .configuration_unim2rec import UniM2RecConfig
from .modeling_unim2rec import UniM2RecModel
from .pretraining_unim2rec import UniM2RecForPretraining

AutoConfig.register(UniM2RecConfig.model_type, UniM2RecConfig)
AutoModel.register(UniM2RecConfig, UniM2RecModel)
AutoModelForPreTraining.register(UniM2RecConfig, UniM2RecForPretraining)

__all__ = ["UniM2RecConfig", "UniM2RecForPretraining", "UniM2RecModel"]

"""Recformer; importing it makes the Auto classes of transformers know it."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForPreTraining

from .causal_recformer import CausalRecformerForPretraining, CausalRecformerModel
from .configuration_recformer import CausalRecformerConfig, RecformerConfig
from .convert_recformer import convert
from .encode_items import EncodeItems
from .finetuning_recformer import finetune
from .modeling_recformer import RecformerModel
from .pretraining_recformer import RecformerForPretraining, RecformerPretrainingOutput
from .processing_recformer import ItemTokens, RecformerProcessor

AutoConfig.register(RecformerConfig.model_type, RecformerConfig)
AutoModel.register(RecformerConfig, RecformerModel)
AutoModelForPreTraining.register(RecformerConfig, RecformerForPretraining)
AutoConfig.register(CausalRecformerConfig.model_type, CausalRecformerConfig)
AutoModel.register(CausalRecformerConfig, CausalRecformerModel)
AutoModelForPreTraining.register(CausalRecformerConfig, CausalRecformerForPretraining)

__all__ = [
    "CausalRecformerConfig",
    "CausalRecformerForPretraining",
    "CausalRecformerModel",
    "EncodeItems",
    "ItemTokens",
    "RecformerConfig",
    "RecformerForPretraining",
    "RecformerModel",
    "RecformerPretrainingOutput",
    "RecformerProcessor",
    "convert",
    "finetune",
]

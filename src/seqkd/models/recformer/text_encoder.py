"""A BERT, RoBERTa or Longformer as the starting weights of a Recformer."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from ...errors import ConfigError
from ...files.model_folder import config_of
from .configuration_recformer import RecformerConfig

# Rows of the position table before that of the first token: RoBERTa counts from padding on.
FIRST_POSITION = {"bert": lambda pad: 0, "roberta": lambda pad: pad + 1, "xlm-roberta": lambda pad: pad + 1}
FIRST_POSITION["longformer"] = FIRST_POSITION["roberta"]
# Where the head of a masked language model keeps its parts.
BERT_HEAD = ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.decoder")
HEAD = ("lm_head.dense", "lm_head.layer_norm", "lm_head.decoder")
SHAPE = (
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "initializer_range",
    "pad_token_id",
)


def weights_from(
    name: str | os.PathLike, num_hidden_layers: int | None, fields: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The fields of a `RecformerConfig` and its weights, see `RecformerModel.from_text_encoder`."""
    config = config_of(name)
    if config.model_type not in FIRST_POSITION:
        raise ConfigError(
            f"{name} is a {config.model_type!r} model; a Recformer starts from one of {sorted(FIRST_POSITION)}."
        )
    fixed = [field for field in SHAPE[:5] if fields.get(field, getattr(config, field)) != getattr(config, field)]
    if fixed:
        raise ConfigError(f"{fixed[0]} is {getattr(config, fixed[0])} in {name} and cannot be {fields[fixed[0]]}.")
    layers = config.num_hidden_layers if num_hidden_layers is None else num_hidden_layers
    if not 1 <= layers <= config.num_hidden_layers:
        raise ConfigError(f"num_hidden_layers must be within 1..{config.num_hidden_layers} of {name}, got {layers}.")
    settings = {field: getattr(config, field) for field in SHAPE} | {"num_hidden_layers": layers} | dict(fields)
    if not {"bos_token_id", "mask_token_id"} <= settings.keys():
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        known = {"bos_token_id": tokenizer.cls_token_id, "mask_token_id": tokenizer.mask_token_id}
        settings = {field: token for field, token in known.items() if token is not None} | settings
    tokens = settings.get("max_token_num", RecformerConfig.max_token_num)
    settings.setdefault("max_token_positions", tokens + settings["pad_token_id"] + 1)

    source = AutoModel.from_pretrained(name, trust_remote_code=False, use_safetensors=True).float().state_dict()
    first = FIRST_POSITION[config.model_type](config.pad_token_id)
    return settings, _as_recformer(source, settings, first)


def _as_recformer(source: Mapping[str, Tensor], settings: Mapping[str, Any], first: int) -> dict[str, Tensor]:
    weights = {
        name: tensor
        for name, tensor in source.items()
        if re.match(r"embeddings\.(word_embeddings|LayerNorm)\.", name)
        or ((layer := re.match(r"encoder\.layer\.(\d+)\.", name)) and int(layer[1]) < settings["num_hidden_layers"])
    }
    for name in [name for name in weights if re.search(r"attention\.self\.(query|key|value)\.", name)]:
        weights.setdefault(re.sub(r"(query|key|value)\.", r"\1_global.", name), weights[name].clone())
    known = source["embeddings.position_embeddings.weight"][first:]
    start = settings["pad_token_id"] + 1
    positions = torch.zeros(settings["max_token_positions"], known.shape[1])
    positions[start:] = known[torch.arange(len(positions) - start) % len(known)]
    weights["embeddings.position_embeddings.weight"] = positions
    types = settings.get("token_type_size", RecformerConfig.token_type_size)
    weights["embeddings.token_type_embeddings.weight"] = source["embeddings.token_type_embeddings.weight"][:1].repeat(
        types, 1
    )
    items = settings.get("max_item_embeddings", RecformerConfig.max_item_embeddings)
    weights["embeddings.item_position_embeddings.weight"] = torch.zeros(items, known.shape[1])
    return weights


def head_from(name: str | os.PathLike) -> dict[str, Tensor] | None:
    """The language model head of a checkpoint as `dense.*`, `layer_norm.*`, `decoder.*`; None where it holds none."""
    model, info = AutoModelForMaskedLM.from_pretrained(
        name, trust_remote_code=False, use_safetensors=True, output_loading_info=True
    )
    parts = BERT_HEAD if model.config.model_type == "bert" else HEAD
    if any(key.startswith(parts) for key in info["missing_keys"]):
        return None
    weights = model.float().state_dict()
    ours = ("dense", "layer_norm", "decoder")
    return {
        f"{new}.{kind}": weights[f"{old}.{kind}"].clone()
        for old, new in zip(parts, ours, strict=True)
        for kind in ("weight", "bias")
    }

"""The authors' UniSRec checkpoints as ours, without running what their pickles hold (see `seqkd.files.inert_pickle`).

Names of RUCAIBox/UniSRec@05aa5cb on the left, ours on the right; fused tensors are stacked in the order written:

    position_embedding.weight                                      position_embedding.weight
    LayerNorm.*                                                    embedding_norm.*
    moe_adaptor.{w_gate, w_noise}                                  adaptor.{gate, noise}
    moe_adaptor.experts.{e}.bias                                   adaptor.shift[e]
    moe_adaptor.experts.{e}.lin.weight                             adaptor.weight[e], transposed
    trm_encoder.layer.{i}.multi_head_attention.{query,key,value}.* encoder.layers.{i}.attention.qkv.*
    trm_encoder.layer.{i}.multi_head_attention.dense.*             encoder.layers.{i}.attention.dense.*
    trm_encoder.layer.{i}.multi_head_attention.LayerNorm.*         encoder.layers.{i}.attention_norm.*
    trm_encoder.layer.{i}.feed_forward.dense_{1,2}.*               encoder.layers.{i}.feed_forward.dense_{1,2}.*
    trm_encoder.layer.{i}.feed_forward.LayerNorm.*                 encoder.layers.{i}.feed_forward_norm.*
    plm_embedding.weight (fine-tuned)                              item_features
    item_embedding.weight (transductive)                           item_embedding.weight
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor

from ...errors import CheckpointError, ConfigError
from ...files.inert_pickle import Placeholder, StoredTensor
from ...files.torch_archive import read_archive
from .configuration_unisrec import UniSRecConfig
from .modeling_unisrec import UniSRecModel

PROJECTIONS = ("query", "key", "value")
PAIRS = (
    ("LayerNorm.weight", "embedding_norm.weight"),
    ("LayerNorm.bias", "embedding_norm.bias"),
    ("position_embedding.weight", "position_embedding.weight"),
    ("moe_adaptor.w_gate", "adaptor.gate"),
    ("moe_adaptor.w_noise", "adaptor.noise"),
    ("plm_embedding.weight", "item_features"),
    ("item_embedding.weight", "item_embedding.weight"),
)
LAYER_PAIRS = (
    ("multi_head_attention.dense", "attention.dense"),
    ("multi_head_attention.LayerNorm", "attention_norm"),
    ("feed_forward.dense_1", "feed_forward.dense_1"),
    ("feed_forward.dense_2", "feed_forward.dense_2"),
    ("feed_forward.LayerNorm", "feed_forward_norm"),
)
OPTIONAL = frozenset({"plm_embedding.weight", "item_embedding.weight"})
KINDS = ("weight", "bias")
# The authors' name of each setting that shapes alone do not tell.
SETTINGS = {
    "n_heads": "num_attention_heads",
    "hidden_dropout_prob": "hidden_dropout_prob",
    "attn_dropout_prob": "attention_probs_dropout_prob",
    "adaptor_dropout_prob": "adaptor_dropout_prob",
    "hidden_act": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
    "initializer_range": "initializer_range",
    "temperature": "temperature",
    "lambda": "seq_seq_weight",
    "item_drop_ratio": "item_drop_ratio",
    "item_drop_coefficient": "item_drop_probability",
}


def convert(
    path: str | os.PathLike, output_dir: str | os.PathLike, *, num_attention_heads: int | None = None
) -> UniSRecModel:
    """Write the authors' checkpoint (`UniSRec-FHCKM-300.pth` or a fine-tuned one) as a seqkd model folder.

    A pre-trained checkpoint knows no items: the result has one nameless item; call `for_domain(catalogue, features)`.

    Args:
        path: a `.pth` file of `torch.save`, with a `state_dict`.
        output_dir: gets `config.json` and `model.safetensors`.
        num_attention_heads: needed only when the checkpoint names none and has other than the authors' 2.

    Raises:
        CheckpointError: the file is damaged, or is no UniSRec.
    """
    saved, read_tensor = read_archive(path)
    stored = saved.get("state_dict")
    if not isinstance(stored, dict):
        raise CheckpointError(
            f"{path} is no UniSRec checkpoint: it holds {sorted(map(str, saved))[:5]}, no 'state_dict'."
        )
    tensors = {str(name): value for name, value in stored.items() if isinstance(value, StoredTensor)}
    shapes = {name: value.size for name, value in tensors.items()}
    _check_extent(tensors, path)
    settings = _settings(saved.get("config"))
    if num_attention_heads is not None:
        settings["num_attention_heads"] = num_attention_heads
    try:
        config = UniSRecConfig(**_sizes(shapes, path), **settings)
    except (StrictDataclassError, ConfigError) as error:
        raise CheckpointError(f"{path} names settings that UniSRec cannot have: {error}") from error
    _check_shapes(shapes, config, path)
    model = UniSRecModel(config)
    ours = from_authors({name: read_tensor(value).float() for name, value in tensors.items()})
    model.load_state_dict(ours, strict=False)
    model.eval().save_pretrained(output_dir)
    return model


def from_authors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict of theirs; see the table above."""
    ours = {new: tensors[old] for old, new in PAIRS if old in tensors}
    experts = _count(tensors, r"moe_adaptor\.experts\.(\d+)\.bias")
    ours["adaptor.shift"] = torch.stack([tensors[f"moe_adaptor.experts.{e}.bias"] for e in range(experts)])
    weights = [tensors[f"moe_adaptor.experts.{e}.lin.weight"].T for e in range(experts)]
    ours["adaptor.weight"] = torch.stack(weights).contiguous()
    for i in range(_count(tensors, r"trm_encoder\.layer\.(\d+)\.")):
        old, new = f"trm_encoder.layer.{i}", f"encoder.layers.{i}"
        for kind in KINDS:
            parts = [tensors[f"{old}.multi_head_attention.{name}.{kind}"] for name in PROJECTIONS]
            ours[f"{new}.attention.qkv.{kind}"] = torch.cat(parts)
            ours |= {f"{new}.{b}.{kind}": tensors[f"{old}.{a}.{kind}"] for a, b in LAYER_PAIRS}
    return ours


def to_authors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their state dict of ours: the inverse of `from_authors`; `item_counts`, which they do not have, is left out."""
    theirs = {old: tensors[new] for old, new in PAIRS if new in tensors}
    for e, (shift, weight) in enumerate(zip(tensors["adaptor.shift"], tensors["adaptor.weight"], strict=True)):
        theirs[f"moe_adaptor.experts.{e}.bias"] = shift
        theirs[f"moe_adaptor.experts.{e}.lin.weight"] = weight.T
    for i in range(_count(tensors, r"encoder\.layers\.(\d+)\.")):
        old, new = f"trm_encoder.layer.{i}", f"encoder.layers.{i}"
        for kind in KINDS:
            parts = tensors[f"{new}.attention.qkv.{kind}"].chunk(3)
            theirs |= {f"{old}.multi_head_attention.{n}.{kind}": p for n, p in zip(PROJECTIONS, parts, strict=True)}
            theirs |= {f"{old}.{a}.{kind}": tensors[f"{new}.{b}.{kind}"] for a, b in LAYER_PAIRS}
    return theirs


def _check_extent(tensors: Mapping[str, StoredTensor], path: str | os.PathLike) -> None:
    """Refuse sizes that the file cannot hold, before anything is made in those sizes."""
    total = 0
    for name, tensor in tensors.items():
        if min(tensor.size, default=1) < 1:
            raise CheckpointError(f"{path}: {name} has the shape {tensor.size}; UniSRec has no empty tensors.")
        total += math.prod(tensor.size) * tensor.dtype.itemsize
    if total > os.path.getsize(path):
        raise CheckpointError(f"{path} declares {total} bytes of tensors but is {os.path.getsize(path)} bytes long.")


def _check_shapes(shapes: Mapping[str, tuple[int, ...]], config: UniSRecConfig, path: str | os.PathLike) -> None:
    with torch.device("meta"):  # shapes without memory
        expected = {name: tuple(tensor.shape) for name, tensor in to_authors(UniSRecModel(config).state_dict()).items()}
    wrong = [
        f"{name} is {shapes.get(name, 'missing')}, expected {expected.get(name, 'no such tensor')}"
        for name in sorted({*expected, *shapes})
        if shapes.get(name) != expected.get(name) and (name in shapes or name not in OPTIONAL)
    ]
    if wrong:
        raise CheckpointError(f"{path} is no UniSRec checkpoint: {'; '.join(wrong[:3])}.")


def _count(names: Mapping[str, Any], pattern: str) -> int:
    return max((int(found[1]) + 1 for name in names if (found := re.match(pattern, name))), default=0)


def _sizes(shapes: Mapping[str, tuple[int, ...]], path: str | os.PathLike) -> dict[str, Any]:
    """The sizes of the model, read off the shapes of its tensors."""
    try:
        length, width = shapes["position_embedding.weight"]
        plm_size, experts = shapes["moe_adaptor.w_gate"]
        inner, _ = shapes["trm_encoder.layer.0.feed_forward.dense_1.weight"]
        rows, _ = shapes.get("plm_embedding.weight", shapes.get("item_embedding.weight", (2, width)))
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no UniSRec checkpoint: {error} is not there or no matrix. It holds {sorted(shapes)[:5]}."
        ) from error
    layers = _count(shapes, r"trm_encoder\.layer\.(\d+)\.")
    if rows < 2 or layers + experts > len(shapes):
        raise CheckpointError(f"{path} is no UniSRec checkpoint: no items, or layers not numbered 0, 1, ...")
    return {
        "num_items": rows - 1,
        "hidden_size": width,
        "max_position_embeddings": length,
        "plm_size": plm_size,
        "num_hidden_layers": layers,
        "intermediate_size": inner,
        "num_experts": experts,
        "use_item_embedding": "item_embedding.weight" in shapes,
    }


def _settings(config: Any) -> dict[str, Any]:
    """What the `final_config_dict` of the pickled RecBole `Config`, plain data, says; defaults where it is silent."""
    state = config.state if isinstance(config, Placeholder) else config
    values = state.get("final_config_dict", state) if isinstance(state, dict) else {}
    if not isinstance(values, dict):
        return {}
    return {new: values[old] for old, new in SETTINGS.items() if isinstance(values.get(old), (int, float, str))}

"""SASRec checkpoints of RecBole and of pmixer/SASRec.pytorch -> configuration and tensors of `SASRecModel`.

Both functions take a plain state dict (from safetensors, or `torch.load(..., weights_only=True)`), so nothing is ever
unpickled here:

    settings, tensors = from_recbole(load_file("sasrec.safetensors"), num_attention_heads=2)
    model = SASRecModel(SASRecConfig(**settings))
    model.load_state_dict(tensors)
    model.set_catalogue(Catalogue(ids))  # the external ids, row 1 first: they are not in such a checkpoint
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError

QKV = ("query", "key", "value")  # row order of `attention.qkv`
RECBOLE_NAMES = {
    "multi_head_attention.dense": "attention.dense",
    "multi_head_attention.LayerNorm": "attention_norm",
    "feed_forward.dense_1": "feed_forward.dense_1",
    "feed_forward.dense_2": "feed_forward.dense_2",
    "feed_forward.LayerNorm": "feed_forward_norm",
}
PMIXER_NAMES = {
    "attention_layernorms.{}.": "attention_norm.",
    "attention_layers.{}.in_proj_": "attention.qkv.",
    "attention_layers.{}.out_proj.": "attention.dense.",
    "forward_layernorms.{}.": "feed_forward_norm.",
    "forward_layers.{}.conv1.": "feed_forward.dense_1.",
    "forward_layers.{}.conv2.": "feed_forward.dense_2.",
}


def from_recbole(
    state_dict: Mapping[str, Tensor], *, num_attention_heads: int = 2
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """RecBole's SASRec. The number of heads is not visible in the tensors.

    Raises:
        CheckpointError: a tensor is missing, or there is one that SASRec does not have.
    """
    source = _Source(state_dict, "RecBole SASRec")
    out = {"item_embedding.weight": source.take("item_embedding.weight")}
    out["position_embedding.weight"] = source.take("position_embedding.weight")
    out |= source.take_both("LayerNorm.", "embedding_norm.")
    num_layers = source.count(r"trm_encoder\.layer\.(\d+)\.")
    for i in range(num_layers):
        out |= recbole_layer(source.take, f"trm_encoder.layer.{i}.", f"encoder.layers.{i}.")
    source.check_empty()
    table = out["item_embedding.weight"]
    out["item_counts"] = torch.zeros(len(table))
    settings = {
        "num_items": len(table) - 1,
        "hidden_size": table.shape[1],
        "max_position_embeddings": len(out["position_embedding.weight"]),
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_attention_heads,
        "intermediate_size": len(out["encoder.layers.0.feed_forward.dense_1.weight"]),
        "mask_padding_logit": False,
    }
    return settings, out


def recbole_layer(take: Callable[[str], Tensor], source: str, target: str) -> dict[str, Tensor]:
    """One layer of RecBole's `TransformerEncoder` (which UniSRec uses too), read by `take(name)`."""
    out = {}
    for kind in ("weight", "bias"):
        parts = [take(f"{source}multi_head_attention.{name}.{kind}") for name in QKV]
        out[f"{target}attention.qkv.{kind}"] = torch.cat(parts)
        for theirs, ours in RECBOLE_NAMES.items():
            out[f"{target}{ours}.{kind}"] = take(f"{source}{theirs}.{kind}")
    return out


def from_pmixer(
    state_dict: Mapping[str, Tensor], *, num_attention_heads: int = 1, norm_first: bool = False
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The PyTorch SASRec of pmixer. Heads and `norm_first` are not visible in the tensors.

    Raises:
        CheckpointError: a tensor is missing, or there is one that SASRec does not have.
    """
    source = _Source(state_dict, "pmixer SASRec")
    out = {"item_embedding.weight": source.take("item_emb.weight")}
    out["position_embedding.weight"] = source.take("pos_emb.weight")
    out |= source.take_both("last_layernorm.", "final_norm.")
    num_layers = source.count(r"attention_layers\.(\d+)\.")
    for i in range(num_layers):
        for theirs, ours in PMIXER_NAMES.items():
            out |= source.take_both(theirs.format(i), f"encoder.layers.{i}.{ours}")
        for name in ("dense_1", "dense_2"):
            key = f"encoder.layers.{i}.feed_forward.{name}.weight"
            out[key] = out[key].squeeze(-1)  # a convolution over one slot is a linear layer
    source.check_empty()
    table = out["item_embedding.weight"]
    out["item_counts"] = torch.zeros(len(table))
    settings = {
        "num_items": len(table) - 1,
        "hidden_size": table.shape[1],
        "max_position_embeddings": len(out["position_embedding.weight"]) - 1,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_attention_heads,
        "intermediate_size": table.shape[1],
        "hidden_dropout_prob": 0.2,
        "attention_probs_dropout_prob": 0.2,
        "hidden_act": "relu",
        "layer_norm_eps": 1e-8,
        "norm_style": "pre" if norm_first else "post",
        "embedding_norm": False,
        "final_norm": True,
        "padding_side": "left",
        "attend_padding": True,
        "scale_embedding": True,
        "loss_type": "bce",
        "num_negatives": 1,
    }
    return settings, out


class _Source:
    """A state dict that knows which tensors were not asked for."""

    def __init__(self, state_dict: Mapping[str, Tensor], what: str) -> None:
        self.left, self.what = dict(state_dict), what

    def take(self, name: str) -> Tensor:
        if name not in self.left:
            raise CheckpointError(f"this is no {self.what} checkpoint: tensor {name!r} is missing.")
        return self.left.pop(name)

    def take_both(self, theirs: str, ours: str) -> dict[str, Tensor]:
        return {ours + kind: self.take(theirs + kind) for kind in ("weight", "bias")}

    def count(self, pattern: str) -> int:
        numbers = {match[1] for name in self.left if (match := re.match(pattern, name))}
        if not numbers:
            raise CheckpointError(f"this is no {self.what} checkpoint: it has no layers ({pattern}).")
        return len(numbers)

    def check_empty(self) -> None:
        if self.left:
            raise CheckpointError(f"this is no {self.what} checkpoint: it also holds {sorted(self.left)[:5]}.")

"""Recformers small enough to train in a test: the authors' golden one, and one for the tiny market."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from seqkd.data.split import Split
from seqkd.models.recformer import ItemTokens, RecformerConfig
from seqkd.recommenders.recommender import count_items

SIZES = {
    "vocab_size": 24,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "attention_window": 8,
    "max_token_positions": 40,
    "max_token_num": 24,
    "max_position_embeddings": 6,
    "max_item_embeddings": 7,
    "max_item_length": 4,
    "mask_token_id": 2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "fix_word_embedding": False,
}


def golden_config(golden: Path, **changes: Any) -> RecformerConfig:
    theirs = json.loads((golden / "recformer_tiny.json").read_text(encoding="utf-8"))["config"]
    known = {name: value for name, value in theirs.items() if name in RecformerConfig().to_dict()}
    known |= {"max_token_positions": theirs["max_position_embeddings"], "max_position_embeddings": 4}
    return RecformerConfig(**{**known, "num_items": 6, "mask_token_id": 262, **changes})


def golden_tokens(vectors: dict) -> ItemTokens:
    """The six items; every token stands for a word of its own."""
    items = [vectors["inputs"]["encoded_items {id: [input_ids, token_type_ids]}"][str(i)] for i in range(6)]
    lengths = np.array([len(ids) for ids, _ in items], dtype=np.int32)
    ids, types = np.zeros((2, 6, 21), np.int32)
    words = np.full((6, 21), -1, np.int32)
    for row, (own, kinds) in enumerate(items):
        ids[row, : len(own)], types[row, : len(own)], words[row, : len(own)] = own, kinds, np.arange(len(own))
    return ItemTokens(ids, types, lengths, words)


def golden_model(cls: type[Any], golden: Path, vectors: dict, **changes: Any) -> Any:
    model = cls(golden_config(golden, **changes))
    weights = load_file(golden / "recformer_tiny.safetensors")
    ours = {name.removeprefix("longformer."): tensor for name, tensor in weights.items()}
    missing, _ = model.load_state_dict(ours, strict=False)
    assert all(name.startswith("item_") for name in missing)
    model.set_item_features(golden_tokens(vectors))
    return model.eval()


def tokens_of(num_items: int) -> ItemTokens:
    """Four tokens an item, of three words; neighbours share one, so that a text says something about what follows."""
    number = np.arange(num_items)
    ids = np.stack([number % 19 + 3, (number + 1) % 19 + 3, number // 2 % 19 + 3, number * 7 % 19 + 3], axis=1)
    types, words = np.tile([1, 2, 2, 2], (num_items, 1)), np.tile([0, 1, 1, 2], (num_items, 1))
    lengths = np.full(num_items, 4)
    return ItemTokens(*(part.astype(np.int32) for part in (ids, types, lengths, words)))


def tiny_recformer(cls: type[Any], split: Split, seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    model = cls(RecformerConfig(num_items=len(split.catalogue), **{**SIZES, **changes}))
    model.set_item_features(tokens_of(len(split.catalogue)))
    model.set_catalogue(split.catalogue, count_items(split.train, len(split.catalogue)))
    return model

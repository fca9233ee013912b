"""The authors' Recformer checkpoints as ours, without running what their pickles hold (see `seqkd.files.inert_pickle`).

Three kinds of file of AaronHeee/RecFormer@26b00a5 hold the same encoder under different names:

    recformer_ckpt.bin               embeddings.*, encoder.*
    recformer_seqrec_ckpt.bin        longformer.embeddings.*, longformer.encoder.*, lm_head.*
    Lightning with DeepSpeed         _forward_module.model.longformer.*, _forward_module.model.lm_head.*

A fine-tuned one adds `item_embedding.weight (I, D)`, its item vectors. The pre-training froze the word embeddings, so
DeepSpeed left them out: they come from the file the pre-training was started from.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...errors import CheckpointError, ConfigError
from ...files.inert_pickle import StoredTensor
from ...files.torch_archive import read_archive
from .configuration_recformer import RecformerConfig
from .modeling_recformer import RecformerModel
from .pretraining_recformer import RecformerForPretraining
from .processing_recformer import ItemTokens

logger = logging.getLogger(__name__)

PREFIX = re.compile(r"^(_forward_module\.)?(model\.)?(longformer\.)?")
WORDS = "embeddings.word_embeddings.weight"
ITEMS = "item_embedding.weight"
HEAD = "lm_head."
# A buffer that counts up, and a second name of `lm_head.decoder.bias`.
REPEATED = frozenset({"embeddings.position_ids", "lm_head.bias"})


def convert(
    path: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    pretraining: bool = False,
    word_embeddings: str | os.PathLike | None = None,
    features: ItemTokens | None = None,
    **settings: Any,
) -> RecformerModel:
    """Write the authors' checkpoint as a seqkd model folder.

    A checkpoint knows no texts, so the result has one nameless item: call `for_domain(catalogue, tokens)` with what a
    `RecformerProcessor` around the tokenizer of `allenai/longformer-base-4096` makes of the items. A fine-tuned
    checkpoint brings vectors of its items; they are kept if `features` say what these items are.

    Args:
        path: a `.bin` or `.ckpt` file of `torch.save`.
        output_dir: gets `config.json` and `model.safetensors`.
        pretraining: keep the head of the masked language model, to go on pre-training.
        word_embeddings: a `.bin` or `.safetensors` file with the word embeddings, for a checkpoint without them: the
            Longformer that its pre-training started from.
        features: tokens of the items of a fine-tuned checkpoint, in the order of the authors' `smap.json`.
        settings: fields of `RecformerConfig` that shapes do not tell and that are not Longformer-base's.

    Raises:
        CheckpointError: the file is damaged, or is no Recformer, or what was asked of it is not in it.
        ConfigError: a setting does not exist, word embeddings are given to a checkpoint that has its own, or features
            to one without item vectors.
        DataError: features of another number of items.
    """
    unknown = settings.keys() - RecformerConfig().to_dict().keys()
    if unknown:
        raise ConfigError(f"RecformerConfig has no field {sorted(unknown)[0]!r}.")
    stored, read_tensor = _tensors(path)
    tensors = {PREFIX.sub("", name): tensor for name, tensor in stored.items()}
    if len(tensors) < len(stored):
        raise CheckpointError(f"{path} holds two models: some names differ only in their prefix. Save one of them.")
    _check_kind(tensors, path)
    _check_extent(tensors, path)
    words = _words(tensors, word_embeddings, path)
    shapes = {name: tensor.size for name, tensor in tensors.items() if name not in REPEATED}
    if words is not None:
        shapes[WORDS] = tuple(words.shape)
    if pretraining and not any(name.startswith(HEAD) for name in shapes):
        raise CheckpointError(f"{path} holds no {HEAD}*, which pretraining=True keeps. Convert it without.")
    if features is not None and ITEMS not in shapes:
        raise ConfigError(
            f"{path} holds no item vectors. Leave features out, and call for_domain(catalogue, features)."
        )
    if features is None and shapes.pop(ITEMS, ()):
        logger.warning("the item vectors of %s are left out: without features= no history could be read.", path)
    if not pretraining:
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith(HEAD)}
    try:
        config = RecformerConfig(**{**_sizes(shapes, path), **settings})
    except (StrictDataclassError, ConfigError) as error:
        raise CheckpointError(f"{path} with {settings} is no Recformer that can be built: {error}") from error
    kind = RecformerForPretraining if pretraining else RecformerModel
    _check_shapes(shapes, kind, config, path)
    model = kind(config)
    ours = {name: read_tensor(tensors[name]).float() for name in shapes if name in tensors}
    if words is not None:
        ours[WORDS] = words
    items = ours.pop(ITEMS, None)
    model.load_state_dict(ours, strict=False)
    if features is not None and items is not None:
        model.set_item_features(features)
        model.item_vectors[1:] = F.normalize(items, dim=-1)
    model.eval().save_pretrained(output_dir)
    return model


def _tensors(path: str | os.PathLike) -> tuple[dict[str, StoredTensor], Callable[[StoredTensor], Tensor]]:
    """All tensors of a state dict that is the file itself or its `state_dict` (Lightning) or `module` (DeepSpeed)."""
    saved, read_tensor = read_archive(path)
    state = next((saved[key] for key in ("state_dict", "module") if isinstance(saved.get(key), dict)), saved)
    return {str(name): value for name, value in state.items() if isinstance(value, StoredTensor)}, read_tensor


def _check_kind(names: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Name the file when it is something else that people have."""
    if "embeddings.item_position_embeddings.weight" in names:
        return
    if any(name.startswith(("moe_adaptor.", "trm_encoder.")) for name in names):
        kind = "It looks like UniSRec: `seqkd convert unisrec`"
    elif any(name.endswith("self.query_global.weight") for name in names):
        kind = "It looks like a plain Longformer: RecformerModel.from_text_encoder starts from one"
    elif any(name.endswith(WORDS) for name in names):
        kind = "It looks like a plain text encoder: RecformerModel.from_text_encoder starts from one"
    else:
        kind = f"It holds {sorted(names)[:5]}"
    raise CheckpointError(f"{path} is no Recformer checkpoint: it has no item_position_embeddings. {kind}.")


def _check_extent(tensors: Mapping[str, StoredTensor], path: str | os.PathLike) -> None:
    """Refuse sizes that the file cannot hold, before anything is made in those sizes. Tied tensors count once."""
    distinct = {(tensor.key, tensor.offset, tensor.size): tensor for tensor in tensors.values()}
    total = sum(math.prod(tensor.size) * tensor.dtype.itemsize for tensor in distinct.values())
    if total > os.path.getsize(path):
        raise CheckpointError(f"{path} declares {total} bytes of tensors but is {os.path.getsize(path)} bytes long.")


def _words(
    tensors: Mapping[str, StoredTensor], source: str | os.PathLike | None, path: str | os.PathLike
) -> Tensor | None:
    """The word embeddings of another file when the checkpoint lacks them, `(V, D)`."""
    if WORDS in tensors:
        if source is not None:
            raise ConfigError(f"{path} has word embeddings of its own. Leave word_embeddings out.")
        return None
    if source is None:
        raise CheckpointError(
            f"{path} holds no {WORDS}: they were frozen in pre-training and not saved. Give word_embeddings=FILE, the "
            "Longformer (.bin or .safetensors) that the pre-training started from."
        )
    if Path(source).suffix == ".safetensors":
        try:
            with safe_open(source, framework="pt") as file:
                found = [name for name in file.keys() if name.endswith(WORDS)]  # noqa: SIM118 (no mapping)
                values = [file.get_tensor(name) for name in found]
        except SafetensorError as error:
            raise CheckpointError(f"{source} is cut or damaged ({error}).") from error
    else:
        stored, read_tensor = _tensors(source)
        found = [name for name in stored if name.endswith(WORDS)]
        values = [read_tensor(stored[name]) for name in found]
    if len(values) != 1:
        raise CheckpointError(f"{source} must hold one tensor named *{WORDS}, but holds {found}.")
    return values[0].float()


def _sizes(shapes: Mapping[str, tuple[int, ...]], path: str | os.PathLike) -> dict[str, Any]:
    """The sizes of the model, read off the shapes of its tensors."""
    try:
        vocabulary, width = shapes[WORDS]
        positions, _ = shapes["embeddings.position_embeddings.weight"]
        types, _ = shapes["embeddings.token_type_embeddings.weight"]
        items, _ = shapes["embeddings.item_position_embeddings.weight"]
        inner, _ = shapes["encoder.layer.0.intermediate.dense.weight"]
        rows, _ = shapes.get(ITEMS, (1, width))
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is no Recformer checkpoint: {error} is not there or no matrix.") from error
    layers = {int(found[1]) for name in shapes if (found := re.match(r"encoder\.layer\.(\d+)\.", name))}
    if len(layers) != max(layers) + 1:
        raise CheckpointError(f"{path} is no Recformer checkpoint: its layers are not numbered 0, 1, ...")
    return {
        "num_items": rows,
        "vocab_size": vocabulary,
        "hidden_size": width,
        "max_token_positions": positions,
        "token_type_size": types,
        "max_item_embeddings": items,
        "max_position_embeddings": items - 1,
        "num_hidden_layers": len(layers),
        "num_attention_heads": max(1, width // 64),
        "intermediate_size": inner,
    }


def _check_shapes(
    shapes: Mapping[str, tuple[int, ...]], kind: type[RecformerModel], config: RecformerConfig, path: str | os.PathLike
) -> None:
    with torch.device("meta"):  # shapes without memory
        parameters = dict(kind(config).named_parameters())
    expected = {name: tuple(tensor.shape) for name, tensor in parameters.items()}
    expected |= {ITEMS: (config.num_items, config.hidden_size)} if ITEMS in shapes else {}
    wrong = [
        f"{name} is {shapes.get(name, 'missing')}, expected {expected.get(name, 'no such tensor')}"
        for name in sorted({*expected, *shapes})
        if shapes.get(name) != expected.get(name)
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(f"{path} is no Recformer checkpoint: {'; '.join(wrong[:3])}{more}.")

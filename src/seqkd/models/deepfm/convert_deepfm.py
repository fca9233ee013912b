"""DeepFM checkpoints of RecBole -> configuration and tensors of `DeepFMModel`.

Takes a plain state dict (from safetensors, or `torch.load(..., weights_only=True)`), so nothing is ever unpickled here:

    settings, tensors = from_recbole(load_file("deepfm.safetensors"))
    model = DeepFMModel(DeepFMConfig(**settings))
    model.load_state_dict(tensors)
    model.set_catalogue(Catalogue(ids))  # the external ids, row 1 first: they are not in such a checkpoint
    model.set_users(Catalogue(user_ids))

Names of RecBole@7b02be5 on the left, ours on the right; the first three also with `first_order_linear.` and
`..._weight`:

    token_embedding_table.embedding.weight    fields.user.weight, fields.item.weight: one after the other
    token_seq_embedding_table.0.weight        fields.history.weight
    first_order_linear.bias                   fields.bias
    mlp_layers.mlp_layers.{1, 4, 7, ...}.*    layers.{0, 1, 2, ...}.*: dropout and activation are numbered, too
    deep_predict_layer.*                      output.*
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import CheckpointError
from ...modules.convert_factorisation import RecBoleTensors

MLP = "mlp_layers.mlp_layers"
FIELDS = 3  # history, user, item


def from_recbole(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """RecBole's DeepFM with the fields `user_id`, `item_id` and `item_id_list`, in this order.

    Raises:
        CheckpointError: a tensor is missing, does not fit the others, or is one that DeepFM does not have.
    """
    source = RecBoleTensors(state_dict, "DeepFM")
    settings, tensors = source.take_fields()
    sizes: list[int] = []
    while not sizes or f"{MLP}.{3 * len(sizes) + 1}.weight" in source.left:
        for kind in ("weight", "bias"):
            tensors[f"layers.{len(sizes)}.{kind}"] = source.take(f"{MLP}.{3 * len(sizes) + 1}.{kind}")
        sizes.append(len(tensors[f"layers.{len(sizes)}.bias"]))
    for kind in ("weight", "bias"):
        tensors[f"output.{kind}"] = source.take(f"deep_predict_layer.{kind}")
    source.check_empty()
    read, width = tensors["layers.0.weight"].shape[1], settings["hidden_size"]
    if read != FIELDS * width:
        raise CheckpointError(
            f"this RecBole DeepFM reads {read / width:g} fields of width {width}, not the {FIELDS} of history, user "
            "and item. Train it in RecBole with the fields user_id, item_id and item_id_list alone."
        )
    return {**settings, "mlp_hidden_sizes": sizes}, tensors

"""FM checkpoints of RecBole -> configuration and tensors of `FMModel`.

Takes a plain state dict (from safetensors, or `torch.load(..., weights_only=True)`), so nothing is ever unpickled here:

    settings, tensors = from_recbole(load_file("fm.safetensors"))
    model = FMModel(FMConfig(**settings))
    model.load_state_dict(tensors)
    model.set_catalogue(Catalogue(ids))  # the external ids, row 1 first: they are not in such a checkpoint
    model.set_users(Catalogue(user_ids))

Names of RecBole@7b02be5 on the left, ours on the right; each also with `first_order_linear.` and `..._weight`:

    token_embedding_table.embedding.weight    fields.user.weight, fields.item.weight: one after the other
    token_seq_embedding_table.0.weight        fields.history.weight
    first_order_linear.bias                   fields.bias
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...modules.convert_factorisation import RecBoleTensors


def from_recbole(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """RecBole's FM with the fields `user_id`, `item_id` and `item_id_list`, in this order.

    Raises:
        CheckpointError: a tensor is missing, does not fit the others, or is one that FM does not have.
    """
    source = RecBoleTensors(state_dict, "FM")
    settings, tensors = source.take_fields()
    source.check_empty()
    return settings, tensors

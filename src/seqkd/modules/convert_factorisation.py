"""RecBole's field tables -> tensors of `FieldEmbeddings`, called `fields` in its models.

RecBole keeps one table for all token fields, one after the other, and one for each sequence field. The fields are
`user_id`, `item_id` and the history `item_id_list`, in this order, and no others: the tensors do not name them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..catalogue import PADDING
from ..errors import CheckpointError

TOKENS = "token_embedding_table.embedding.weight"  # users, then items
HISTORY = "token_seq_embedding_table.0.weight"
FIRST_ORDER = "first_order_linear."  # before the names of the weights


class RecBoleTensors:
    """A state dict that knows which tensors were not asked for.

    Raises (everywhere):
        CheckpointError: a tensor is missing, does not fit the others, or is one that the model does not have.
    """

    def __init__(self, state_dict: Mapping[str, Tensor], model: str) -> None:
        self.left, self.what = dict(state_dict), f"RecBole {model}"

    def take(self, name: str) -> Tensor:
        if name not in self.left:
            raise CheckpointError(f"this is no {self.what} checkpoint: tensor {name!r} is missing.")
        return self.left.pop(name)

    def check_empty(self) -> None:
        if self.left:
            raise CheckpointError(f"this is no {self.what} checkpoint: it also holds {sorted(self.left)[:5]}.")

    def take_fields(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Settings of a configuration, and the tensors of `fields`."""
        num_items = len(self.left.get(HISTORY, ())) - 1
        out = {"fields.bias": self.take(f"{FIRST_ORDER}bias")}
        for kind, prefix in (("", ""), ("_weight", FIRST_ORDER)):
            tokens, history = self.take(prefix + TOKENS), self.take(prefix + HISTORY)
            if len(history) != num_items + 1 or len(tokens) < num_items + 3 or history.shape[1] != tokens.shape[1]:
                raise CheckpointError(
                    f"this is no {self.what} checkpoint of users, items and one history of items: {prefix + TOKENS} is "
                    f"{tuple(tokens.shape)}, {prefix + HISTORY} {tuple(history.shape)}."
                )
            users, items = tokens.split([len(tokens) - num_items - 1, num_items + 1])
            tables = {"user": users, "item": items, "history": history}
            out |= {f"fields.{name}{kind}.weight": _without_padding(table) for name, table in tables.items()}
        out["item_counts"] = torch.zeros(num_items + 1)
        settings = {
            "num_users": len(out["fields.user.weight"]) - 1,
            "num_items": num_items,
            "hidden_size": out["fields.user.weight"].shape[1],
            "share_item_table": False,
            "loss_type": "bce",
        }
        return settings, out


def _without_padding(table: Tensor) -> Tensor:
    """RecBole leaves the initial values in the row of padding, which no training reaches; here it says nothing."""
    table = table.clone()
    table[PADDING] = 0
    return table

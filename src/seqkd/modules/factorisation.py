"""Factorisation machines for recommendation (Rendle 2010), split into a query's side and an item's side.

A pair has fields: the history (mean of its items) and the user on the side of the query, the item and its attributes on
the side of the item. With one vector v_f and one weight w_f for each field,

    y = bias + sum_f w_f + 1/2 sum_d [(sum_f v_f)^2 - sum_f v_f^2]

is what each side says alone, plus the dot product of the sides' summed vectors. So one matrix product scores the whole
catalogue, exactly:

    y = <[sum v, 1, alone] of the query, [sum v, alone, 1] of the item>
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from ..catalogue import PADDING
from ..errors import ConfigError, DataError

QUERY_FIELDS = 2  # history, user


class Side(NamedTuple):
    """The fields of queries, or of items."""

    vectors: Tensor  # (*, F, D) v_f
    weights: Tensor  # (*,) sum_f w_f, with the bias on the side of the query

    @property
    def alone(self) -> Tensor:
        """What the side says without the other, `(*,)`: first order, and interactions within the side."""
        return self.weights + interactions(self.vectors)


def interactions(vectors: Tensor) -> Tensor:
    """`sum_{f < g} <v_f, v_g>` of `(*, F, D)`, `(*,)`, in linear time (Rendle 2010, Lemma 3.1)."""
    total = vectors.sum(dim=-2)  # (*, D)
    return (total.square() - vectors.square().sum(dim=-2)).sum(dim=-1) / 2


def query_columns(side: Side) -> Tensor:
    """`[sum v, 1, alone]`, `(*, D+2)`."""
    alone = side.alone[..., None]
    return torch.cat([side.vectors.sum(dim=-2), torch.ones_like(alone), alone], dim=-1)


def item_columns(side: Side) -> Tensor:
    """`[sum v, alone, 1]`, `(*, D+2)`."""
    alone = side.alone[..., None]
    return torch.cat([side.vectors.sum(dim=-2), alone, torch.ones_like(alone)], dim=-1)


def xavier_normal(module: nn.Module) -> None:
    """RecBole's start: tables and layers Xavier-normal (rows of padding 0), biases 0. For `_init_weights`."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        init.xavier_normal_(module.weight)
    if isinstance(module, nn.Linear) and module.bias is not None:
        init.zeros_(module.bias)
    # A loaded table keeps its flag, the slice of it would not.
    if isinstance(module, nn.Embedding) and not getattr(module.weight, "_is_hf_initialized", False):
        init.zeros_(module.weight[PADDING])
    if isinstance(module, FieldEmbeddings):
        init.zeros_(module.bias)


class FieldEmbeddings(nn.Module):
    """A vector and a weight for every user, item, item of a history, and attribute; row 0 of each table is zero.

    Args:
        num_users: U; user 0 is unknown and says nothing.
        num_items: I.
        size: D.
        share_item_table: the history reads the items' own vectors, else a table of its own (RecBole). Its weights are
            its own always: how popular an item is says nothing about who bought it.
        num_attributes: values of all attributes together, ids from 1.
        num_attribute_fields: A, attributes of an item, in the columns of the buffer `item_attributes (I+1, A)`; 0 where
            an item has none.
    """

    item_attributes: Tensor | None

    def __init__(
        self,
        num_users: int,
        num_items: int,
        size: int,
        *,
        share_item_table: bool,
        num_attributes: int = 0,
        num_attribute_fields: int = 0,
    ) -> None:
        super().__init__()

        def table(rows: int, width: int) -> nn.Embedding:
            return nn.Embedding(rows + 1, width, padding_idx=PADDING)

        self.bias = nn.Parameter(torch.zeros(1))
        self.user, self.user_weight = table(num_users, size), table(num_users, 1)
        self.item, self.item_weight = table(num_items, size), table(num_items, 1)
        self.history = None if share_item_table else table(num_items, size)
        self.history_weight = table(num_items, 1)
        self.num_attributes, self.num_attribute_fields = num_attributes, num_attribute_fields
        self.attribute = table(num_attributes, size) if num_attributes else None
        self.attribute_weight = table(num_attributes, 1) if num_attributes else None
        ids = torch.zeros(num_items + 1, num_attribute_fields, dtype=torch.long) if num_attributes else None
        self.register_buffer("item_attributes", ids)

    # ---- the two sides ----------------------------------------------------------------------------------------

    def query_side(self, user_ids: Tensor, histories: Tensor) -> Side:
        """Fields history, user of `user_ids (Q,)` and `histories (Q, n)`, 0 padded: `(Q, 2, D)` and `(Q,)`.

        The vector of a history is the mean over its items, its weight the sum, as in RecBole; both 0 where it is empty.
        """
        table = self.item if self.history is None else self.history
        count = (histories != PADDING).sum(dim=1, keepdim=True)  # (Q, 1)
        total = F.embedding_bag(histories, table.weight, mode="sum", padding_idx=PADDING)  # (Q, D)
        vectors = torch.stack([total / count.clamp(min=1), self.user(user_ids)], dim=1)
        bought = F.embedding_bag(histories, self.history_weight.weight, mode="sum", padding_idx=PADDING)  # (Q, 1)
        return Side(vectors, self.bias + (bought + self.user_weight(user_ids)).squeeze(1))

    def item_side(self, item_ids: Tensor | None = None) -> Side:
        """Fields item, attribute 1..A of the whole catalogue `(I+1, 1+A, D)` and `(I+1,)`, or of `item_ids (*)`."""
        if item_ids is None:
            vectors, weights = self.item.weight, self.item_weight.weight
        else:
            vectors, weights = self.item(item_ids), self.item_weight(item_ids)
        vectors, weights = vectors[..., None, :], weights.squeeze(-1)
        if self.item_attributes is None or self.attribute is None or self.attribute_weight is None:
            return Side(vectors, weights)
        attributes = self.item_attributes if item_ids is None else self.item_attributes[item_ids]  # (*, A)
        told = self.attribute_weight(attributes).flatten(-2).sum(dim=-1)
        return Side(torch.cat([vectors, self.attribute(attributes)], dim=-2), weights + told)

    # ---- attributes and what grows ----------------------------------------------------------------------------

    @property
    def item_tables(self) -> Sequence[nn.Module]:
        """With a row for each item, its vector first."""
        read = (self.item, self.item_weight, self.history_weight, self.history)
        return [table for table in read if table is not None]

    @property
    def user_tables(self) -> Sequence[nn.Module]:
        """With a row for each user, his vector first."""
        return [self.user, self.user_weight]

    def set_item_attributes(self, attributes: Tensor) -> None:
        """The attributes of items 1..I, `(I, A)`; errors as in `checked_attributes`."""
        checked = self.checked_attributes(attributes, self.item.num_embeddings - 1)
        if self.item_attributes is not None:
            self.item_attributes[PADDING + 1 :] = checked

    def checked_attributes(self, attributes: Tensor | None, rows: int) -> Tensor:
        """Attributes as `(rows, A)` of the buffer's kind; no item has any where they are not given.

        Raises:
            ConfigError: the model reads no attributes.
            DataError: another shape, no whole numbers, or ids outside 0..`num_attributes`.
        """
        expected = (rows, self.num_attribute_fields)
        if attributes is None:
            return torch.zeros(expected, dtype=torch.long, device=self.bias.device)
        if self.item_attributes is None:
            raise ConfigError(
                "this model reads no attributes of items. Build it with num_attributes (values) and "
                "num_attribute_fields (attributes of an item)."
            )
        if tuple(attributes.shape) != expected or attributes.is_floating_point():
            raise DataError(
                f"attributes must be whole numbers of shape {expected} (items, attributes of each), got "
                f"{attributes.dtype} {tuple(attributes.shape)}."
            )
        wrong = ((attributes < 0) | (attributes > self.num_attributes)).nonzero()
        if len(wrong):
            row, column = wrong[0].tolist()
            raise DataError(
                f"attributes, row {row}, column {column}: {int(attributes[row, column])} is outside "
                f"0..{self.num_attributes} (num_attributes; 0 for none). Number the values of all columns together."
            )
        return attributes.to(self.item_attributes)

    def add_attributes(self, attributes: Tensor) -> None:
        """Those of n new items, `(n, A)` as `checked_attributes` gives them."""
        if self.item_attributes is not None:
            self.item_attributes = torch.cat([self.item_attributes, attributes])

"""Recommenders whose users, histories and items are fields of one table of embeddings: FM and DeepFM."""

from __future__ import annotations

from collections.abc import Sequence as List
from typing import cast

import torch
from torch import Tensor, nn

from ..modules.factorisation import FieldEmbeddings, xavier_normal
from .field_configuration import FactorisationConfig
from .user_recommender import UserRecommender


class FieldRecommender(UserRecommender):
    """The fields and how they grow; a subclass writes `forward(user_ids, histories)` and `item_embeddings`.

    An unknown user says nothing: the history answers alone.
    """

    config: FactorisationConfig
    inputs = ("user_ids", "histories")
    unknown_users = True

    def __init__(self, config: FactorisationConfig) -> None:
        super().__init__(config)
        self.history_window = config.max_position_embeddings
        self.fields = FieldEmbeddings(**config.field_settings())

    def _init_weights(self, module: nn.Module) -> None:
        xavier_normal(module)

    # ---- items ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def set_item_attributes(self, attributes: Tensor) -> None:
        """The attributes of items 1..I, `(I, A)` ids of 1..`num_attributes`, 0 for none; they are saved with the model.

        Raises:
            ConfigError: the model reads no attributes. DataError: another shape, or ids out of range.
        """
        self.fields.set_item_attributes(attributes)

    def add_items(
        self, item_ids: List[str], embeddings: Tensor | None = None, *, attributes: Tensor | None = None
    ) -> None:
        """Grow the catalogue; old rows stay bit-equal. What is not given of a new item is the mean of the old ones.

        Args:
            embeddings: `(n, D)` vectors of the items.
            attributes: `(n, A)`, as in `set_item_attributes`; none without.

        Raises:
            DataError: an id is already in the catalogue, or an array has another shape or values out of range.
        """
        checked = self.fields.checked_attributes(attributes, len(item_ids))
        super().add_items(item_ids, embeddings)
        self.fields.add_attributes(checked)

    @property
    def item_tables(self) -> List[nn.Module]:
        return self.fields.item_tables

    @property
    def user_tables(self) -> List[nn.Module]:
        return self.fields.user_tables

    def get_input_embeddings(self) -> nn.Embedding:
        return self.fields.item

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.fields.item = cast(nn.Embedding, value)

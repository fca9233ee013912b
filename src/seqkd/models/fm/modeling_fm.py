"""FM: user, history, item and its attributes as fields; their pairwise interactions are one dot product."""

from __future__ import annotations

from collections.abc import Sequence as List
from typing import cast

import torch
from torch import Tensor, nn

from ...modules.factorisation import FieldEmbeddings, item_columns, query_columns, xavier_normal
from ...recommender import RecommenderOutput
from ...user_recommender import UserRecommender
from .configuration_fm import FMConfig


class FMModel(UserRecommender):
    """Factorisation machine (Rendle, ICDM 2010, eq. 1) of a user, a history and an item.

    Embeddings are D + 2 wide: two columns carry what a query and an item say on their own, so that scores, losses and
    exported tables hold the whole model, see `seqkd.modules.factorisation`. An unknown user says nothing: the history
    answers alone.
    """

    config: FMConfig
    config_class = FMConfig
    inputs = ("user_ids", "histories")
    unknown_users = True

    def __init__(self, config: FMConfig) -> None:
        super().__init__(config)
        self.history_window = config.max_position_embeddings
        self.fields = FieldEmbeddings(**config.field_settings())
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        xavier_normal(module)

    @property
    def embedding_size(self) -> int:
        return self.config.hidden_size + 2

    def forward(self, user_ids: Tensor, histories: Tensor) -> RecommenderOutput:  # type: ignore[override]
        """`query_embeddings (Q, D+2)` of `user_ids (Q,)` and `histories (Q, n)`, 0 padded."""
        return RecommenderOutput(query_embeddings=query_columns(self.fields.query_side(user_ids, histories)))

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """`(I+1, D+2)`, row 0 padding; or `(*item_ids.shape, D+2)`."""
        return item_columns(self.fields.item_side(item_ids))

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
        self.fields.grow(checked)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.fields.item

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.fields.item = cast(nn.Embedding, value)

"""DeepFM: a factorisation machine and an MLP over the same fields, added."""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...modules.dropout import Dropout
from ...modules.factorisation import QUERY_FIELDS, item_columns, query_columns
from ...recommenders.field_recommender import FieldRecommender
from ...recommenders.recommender import RecommenderOutput
from ...recommenders.wide_and_deep import WideAndDeepRecommender
from .configuration_deepfm import DeepFMConfig


class DeepFMModel(WideAndDeepRecommender, FieldRecommender):
    """DeepFM (Guo et al. 2017, arXiv 1703.04247, eq. 1) of a user, a history and an item.

    Query and item embeddings are `[FM (D+2), first layer of the MLP (H1)]`, see `WideAndDeepRecommender`.
    """

    config: DeepFMConfig
    config_class = DeepFMConfig
    shared_space = False  # the MLP reads users and items by weights of their own

    def __init__(self, config: DeepFMConfig) -> None:
        super().__init__(config)
        self.dropout = Dropout(config.dropout_prob)
        read = (QUERY_FIELDS + 1 + config.num_attribute_fields) * config.hidden_size
        sizes = [read, *config.mlp_hidden_sizes]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))
        self.output = nn.Linear(sizes[-1], 1)
        self.post_init()

    @property
    def widths(self) -> list[int]:
        """Of the two parts of an embedding: D + 2 of the FM, H1 of the MLP."""
        return [self.config.hidden_size + 2, self.config.mlp_hidden_sizes[0]]

    def forward(self, user_ids: Tensor, histories: Tensor) -> RecommenderOutput:  # type: ignore[override]
        """`query_embeddings (Q, D+2+H1)` of `user_ids (Q,)` and `histories (Q, n)`, 0 padded."""
        side = self.fields.query_side(user_ids, histories)
        weight, bias = self._first_layer[0], self.layers[0].bias
        deep = F.linear(self.dropout(side.vectors.flatten(-2)), weight, cast(Tensor, bias))
        return RecommenderOutput(query_embeddings=torch.cat([query_columns(side), deep], dim=-1))

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """`(I+1, D+2+H1)`, row 0 padding; or `(*item_ids.shape, D+2+H1)`."""
        side = self.fields.item_side(item_ids)
        # Dropped here, not once per pair: queries that share candidates share an item's mask, as items a query's.
        deep = F.linear(self.dropout(side.vectors.flatten(-2)), self._first_layer[1])
        return torch.cat([item_columns(side), deep], dim=-1)

    @property
    def _first_layer(self) -> tuple[Tensor, Tensor]:
        """Weights of the fields of the query and of the item, `(H1, 2 D)` and `(H1, (1+A) D)`."""
        at = QUERY_FIELDS * self.config.hidden_size
        weight = cast(Tensor, self.layers[0].weight)
        return weight[:, :at], weight[:, at:]

"""MF: a vector for each user and each item, and their dot product."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from ...catalogue import PADDING
from ...recommenders.recommender import RecommenderOutput
from ...recommenders.user_recommender import UserRecommender
from .configuration_mf import MFConfig


class MFModel(UserRecommender):
    """Matrix factorisation without biases, by default trained with BPR (Rendle et al. 2009, arXiv 1205.2618).

    It answers for the users of training only: `recommend(histories, users=[...])`.
    """

    config: MFConfig
    config_class = MFConfig
    holds_item_table = True

    def __init__(self, config: MFConfig) -> None:
        super().__init__(config)
        self.user_embedding = nn.Embedding(config.num_users + 1, config.hidden_size, padding_idx=PADDING)
        self.item_embedding = nn.Embedding(config.num_items + 1, config.hidden_size, padding_idx=PADDING)
        self.post_init()

    def forward(self, user_ids: Tensor) -> RecommenderOutput:  # type: ignore[override]
        """`query_embeddings (Q, D)` of `user_ids (Q,)`; of unit length when `similarity` is `cosine`."""
        return RecommenderOutput(query_embeddings=self._comparable(self.user_embedding(user_ids)))

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """`(I+1, D)`, row 0 padding; or `(*item_ids.shape, D)`. Of unit length when `similarity` is `cosine`."""
        # Not sparse, as in SASRec: no other part gives this table a dense gradient, and Adam takes no sparse one.
        items = self.item_embedding.weight if item_ids is None else self.item_embedding(item_ids)
        return self._comparable(items)

    def _comparable(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings, dim=-1) if self.config.similarity == "cosine" else embeddings

    def get_input_embeddings(self) -> nn.Embedding:
        return self.item_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.item_embedding = cast(nn.Embedding, value)

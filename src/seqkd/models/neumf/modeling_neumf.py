"""NeuMF: generalised matrix factorisation and an MLP over user and item, fused in the last layer."""

from __future__ import annotations

from collections.abc import Sequence as List
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from ...catalogue import PADDING
from ...modules.dropout import Dropout
from ...recommenders.recommender import RecommenderOutput
from ...recommenders.wide_and_deep import WideAndDeepRecommender
from .configuration_neumf import NeuMFConfig


class NeuMFModel(WideAndDeepRecommender):
    """Neural collaborative filtering (He et al. 2017, arXiv 1708.05031, eq. 12), trained from the start as one model.

    `h^T [p_u * q_i, MLP([p'_u, q'_i])]`: the first half is a dot product, with `h` on the side of the query. Query and
    item embeddings are `[GMF (D), first layer of the MLP (H1)]`, see `WideAndDeepRecommender`. It answers for the users
    of training only.
    """

    config: NeuMFConfig
    config_class = NeuMFConfig
    shared_space = False  # h may turn the signs of GMF round, and the MLP reads both sides by weights of their own

    def __init__(self, config: NeuMFConfig) -> None:
        super().__init__(config)
        size = config.hidden_size
        self.user_embedding = nn.Embedding(config.num_users + 1, size, padding_idx=PADDING)
        self.item_embedding = nn.Embedding(config.num_items + 1, size, padding_idx=PADDING)
        self.mlp_user_embedding = nn.Embedding(config.num_users + 1, size, padding_idx=PADDING)
        self.mlp_item_embedding = nn.Embedding(config.num_items + 1, size, padding_idx=PADDING)
        self.dropout = Dropout(config.dropout_prob)
        sizes = [2 * size, *config.mlp_hidden_sizes]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))
        self.gmf_output = nn.Linear(size, 1, bias=False)  # the two parts of h
        self.output = nn.Linear(sizes[-1], 1)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        if isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=self.config.initializer_range)
            # A loaded table keeps its flag, the slice of it would not.
            if not getattr(module.weight, "_is_hf_initialized", False):
                init.zeros_(module.weight[PADDING])

    @property
    def widths(self) -> list[int]:
        return [self.config.hidden_size, self.config.mlp_hidden_sizes[0]]

    def forward(self, user_ids: Tensor) -> RecommenderOutput:  # type: ignore[override]
        """`query_embeddings (Q, D+H1)` of `user_ids (Q,)`."""
        wide = self.user_embedding(user_ids) * self.gmf_output.weight.squeeze(0)
        weight, bias = self._first_layer[0], cast(Tensor, self.layers[0].bias)
        deep = F.linear(self.dropout(self.mlp_user_embedding(user_ids)), weight, bias)
        return RecommenderOutput(query_embeddings=torch.cat([wide, deep], dim=-1))

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """`(I+1, D+H1)`, row 0 padding; or `(*item_ids.shape, D+H1)`."""
        wide, deep = (
            table.weight if item_ids is None else table(item_ids)
            for table in (self.item_embedding, self.mlp_item_embedding)
        )
        return torch.cat([wide, F.linear(self.dropout(deep), self._first_layer[1])], dim=-1)

    @property
    def _first_layer(self) -> tuple[Tensor, Tensor]:
        """Weights of the user's and of the item's vector, `(H1, D)` each."""
        user, item = cast(Tensor, self.layers[0].weight).split(self.config.hidden_size, dim=1)
        return user, item

    # ---- what grows -------------------------------------------------------------------------------------------

    @property
    def item_tables(self) -> List[nn.Module]:
        return [self.item_embedding, self.mlp_item_embedding]

    @property
    def user_tables(self) -> List[nn.Module]:
        return [self.user_embedding, self.mlp_user_embedding]

    def get_input_embeddings(self) -> nn.Embedding:
        return self.item_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.item_embedding = cast(nn.Embedding, value)

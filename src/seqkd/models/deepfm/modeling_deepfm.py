"""DeepFM: a factorisation machine and an MLP over the same fields, added."""

from __future__ import annotations

from functools import partial
from itertools import pairwise, repeat
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...catalogue import PADDING
from ...errors import ConfigError
from ...field_recommender import FieldRecommender
from ...modules.dropout import Dropout
from ...modules.factorisation import QUERY_FIELDS, item_columns, query_columns
from ...recommender import RecommenderOutput
from .configuration_deepfm import SOFTMAX, DeepFMConfig

BLOCK = 2**18  # hidden values made at a time: these stay in the cache of a core
KEEP = 2**24  # up to 64 MB of hidden values per layer are kept for the backward pass; more are computed a second time


class DeepFMModel(FieldRecommender):
    """DeepFM (Guo et al. 2017, arXiv 1703.04247, eq. 1) of a user, a history and an item.

    The first layer of the MLP is linear in the fields, so it splits: each side brings its part of it, H1 wide, and a
    pair costs the layers after it. Query and item embeddings are `[FM (D+2), first layer (H1)]`. A score is no dot
    product (`scores_by_dot_product`).
    """

    config: DeepFMConfig
    config_class = DeepFMConfig

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

    @property
    def embedding_size(self) -> int:
        return sum(self.widths)

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

    # ---- scores -----------------------------------------------------------------------------------------------

    @property
    def scores_by_dot_product(self) -> bool:
        return False

    def score(self, query_embeddings: Tensor, item_ids: Tensor | None = None) -> Tensor:
        items = self.item_embeddings(item_ids)  # (I+1, D+2+H1), (C, D+2+H1) or (Q, C, D+2+H1)
        wide_queries, deep_queries = query_embeddings.split(self.widths, dim=-1)
        wide_items, deep_items = items.split(self.widths, dim=-1)
        equation = "qd,cd->qc" if items.dim() == 2 else "qd,qcd->qc"
        logits = torch.einsum(equation, wide_queries, wide_items) + self._deep_scores(deep_queries, deep_items)
        logits = logits / self.config.temperature
        if item_ids is None:
            logits[:, PADDING] = torch.finfo(logits.dtype).min
        return logits

    def _deep_scores(self, queries: Tensor, items: Tensor) -> Tensor:
        """What the MLP says `(Q, C)`, from both sides' first layer, `(Q, H1)` and `(C, H1)` or `(Q, C, H1)`.

        Block by block, so that memory does not grow with Q x C x H1. In training a block is computed again in the
        backward pass, unless all of them are few.
        """
        count, width = items.shape[-2:]
        block = self._mlp
        if torch.is_grad_enabled():
            if len(queries) * count * width <= KEEP:
                return self._mlp(queries, items)
            block = partial(checkpoint, self._mlp, use_reentrant=False)
        columns = max(BLOCK // width, 1)
        rows = max(columns // max(count, 1), 1)
        parts = items.split(rows) if items.dim() == 3 else repeat(items)
        return torch.cat(
            [
                torch.cat([block(query, item) for item in part.split(columns, dim=-2)], dim=1)
                for query, part in zip(queries.split(rows), parts, strict=False)
            ]
        )

    def _mlp(self, queries: Tensor, items: Tensor) -> Tensor:
        hidden = (queries[:, None] + items).relu_()  # (Q, C, H1)
        for layer in self.layers[1:]:
            hidden = layer(self.dropout(hidden)).relu_()
        return self.output(hidden).squeeze(-1)

    def catalogue_log_probs(self, query_embeddings: Tensor, item_ids: Tensor) -> Tensor:
        """Refused.

        Raises:
            ConfigError: always; it names what to train with instead.
        """
        raise ConfigError(SOFTMAX)

"""Recommenders that add an MLP over query and item to a dot product: DeepFM and NeuMF."""

from __future__ import annotations

from functools import partial
from itertools import repeat
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..catalogue import PADDING
from ..errors import ConfigError
from .user_recommender import UserRecommender
from .wide_and_deep_configuration import SOFTMAX

BLOCK = 2**18  # hidden values made at a time: these stay in the cache of a core
KEEP = 2**24  # up to 64 MB of hidden values per layer are kept for the backward pass; more are computed a second time


class WideAndDeepRecommender(UserRecommender):
    """Scores, block by block, from embeddings in two parts, `[wide, first layer of the MLP (H1)]` on both sides.

    The first layer is linear in what query and item bring, so it splits: each side brings its part of it, and a pair
    costs the layers after it. A score is no dot product. A subclass writes `forward`, `item_embeddings` and `widths`.

    Attributes that a subclass sets:
        layers: the layers of the MLP, the first of which it reads itself. output: the last, to one logit.
        dropout: before every layer after the first.
    """

    layers: nn.ModuleList
    output: nn.Linear
    dropout: nn.Module

    @property
    def widths(self) -> list[int]:
        """Of the two parts of an embedding."""
        raise NotImplementedError

    @property
    def embedding_size(self) -> int:
        return sum(self.widths)

    @property
    def scores_by_dot_product(self) -> bool:
        return False

    def score(self, query_embeddings: Tensor, item_ids: Tensor | None = None) -> Tensor:
        items = self.item_embeddings(item_ids)  # (I+1, W+H1), (C, W+H1) or (Q, C, W+H1)
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

    def catalogue_log_probs(self, query_embeddings: Tensor, item_ids: Tensor) -> NoReturn:
        """Refused.

        Raises:
            ConfigError: always; it names what to train with instead.
        """
        raise ConfigError(SOFTMAX.format(type(self).__name__.removesuffix("Model")))

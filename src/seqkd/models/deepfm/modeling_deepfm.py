"""DeepFM: a factorisation machine and an MLP over the same fields, added."""

from __future__ import annotations

from collections.abc import Sequence as List
from functools import partial
from itertools import pairwise, repeat
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...catalogue import PADDING
from ...errors import ConfigError
from ...modules.dropout import Dropout
from ...modules.factorisation import QUERY_FIELDS, FieldEmbeddings, item_columns, query_columns, xavier_normal
from ...recommender import RecommenderOutput
from ...user_recommender import UserRecommender
from .configuration_deepfm import SOFTMAX, DeepFMConfig

BLOCK = 2**18  # hidden values made at a time: these stay in the cache of a core
KEEP = 2**24  # up to 64 MB of hidden values per layer are kept for the backward pass; more are computed a second time


class DeepFMModel(UserRecommender):
    """DeepFM (Guo et al. 2017, arXiv 1703.04247, eq. 1) of a user, a history and an item.

    The first layer of the MLP is linear in the fields, so it splits: each side brings its part of it, H1 wide, and a
    pair costs the layers after it. Query and item embeddings are `[FM (D+2), first layer (H1)]`. A score is no dot
    product (`scores_by_dot_product`). An unknown user says nothing: the history answers alone.
    """

    config: DeepFMConfig
    config_class = DeepFMConfig
    inputs = ("user_ids", "histories")
    unknown_users = True

    def __init__(self, config: DeepFMConfig) -> None:
        super().__init__(config)
        self.history_window = config.max_position_embeddings
        self.fields = FieldEmbeddings(**config.field_settings())
        self.dropout = Dropout(config.dropout_prob)
        read = (QUERY_FIELDS + 1 + config.num_attribute_fields) * config.hidden_size
        sizes = [read, *config.mlp_hidden_sizes]
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))
        self.output = nn.Linear(sizes[-1], 1)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        xavier_normal(module)

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

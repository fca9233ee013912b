"""SASRec: item and position embeddings through a causal Transformer; one forward answers every query of a batch."""

from __future__ import annotations

from collections.abc import Sequence as List
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from ...batches.collators import QueryCollator
from ...catalogue import PADDING
from ...errors import ConfigError, DataError
from ...functional import losses
from ...modules.dropout import Dropout
from ...modules.sequence_encoder import SequenceEncoder, causal_mask
from ...recommenders.recommender import RecommenderModel, RecommenderOutput
from .configuration_sasrec import SASRecConfig


class SASRecModel(RecommenderModel):
    """Self-attentive sequential recommendation (Kang and McAuley 2018, arXiv 1808.09781).

    A student may ship with `item_projection`, which places new items from teacher space (see
    `seqkd.fit_item_projection`); recommending never reads it.
    """

    config: SASRecConfig
    config_class = SASRecConfig
    content_argument = "teacher_embeddings"

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__(config)
        width, left = config.hidden_size, config.padding_side == "left"
        self.item_embedding = nn.Embedding(config.num_items + 1, width, padding_idx=PADDING)
        self.position_embedding = nn.Embedding(
            config.max_position_embeddings + left, width, padding_idx=0 if left else None
        )
        self.embedding_norm = self._norm(config.embedding_norm)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.encoder = SequenceEncoder(
            width,
            config.num_hidden_layers,
            config.num_attention_heads,
            config.intermediate_size,
            hidden_dropout=config.hidden_dropout_prob,
            attention_dropout=config.attention_probs_dropout_prob,
            hidden_act=config.hidden_act,
            layer_norm_eps=config.layer_norm_eps,
            norm_style=config.norm_style,
        )
        self.final_norm = self._norm(config.final_norm)
        self.item_projection: nn.Linear | None = None
        if config.item_projection_size:
            self.item_projection = nn.Linear(config.item_projection_size, width)
        self.post_init()
        self.train(self.training)  # freezes

    def _init_weights(self, module: nn.Module) -> None:
        if module is self.item_projection:  # nothing until it is fitted
            init.zeros_(self.item_projection.weight)
            init.zeros_(self.item_projection.bias)
        else:
            super()._init_weights(module)

    def _norm(self, wanted: bool) -> nn.Module:
        return nn.LayerNorm(self.config.hidden_size, eps=self.config.layer_norm_eps) if wanted else nn.Identity()

    def forward(
        self, item_ids: Tensor, sequence_ids: Tensor, position_ids: Tensor, query_index: Tensor
    ) -> RecommenderOutput:
        """Embed the queries of a packed batch.

        Args:
            item_ids, sequence_ids, position_ids: `(B, H)`, from `self.collator()`.
            query_index: `(Q,)` into the B * H slots.

        Returns:
            `query_embeddings (Q, D)`, of unit length when `similarity` is `cosine`.
        """
        states = self.item_embedding(item_ids)  # (B, H, D)
        if self.config.scale_embedding:
            states = states * self.config.hidden_size**0.5
        states = self.dropout(self.embedding_norm(states + self.position_embedding(position_ids)))
        states = self.encoder(states, causal_mask(sequence_ids, attend_padding=self.config.attend_padding))
        queries = self.final_norm(states.flatten(0, 1)[query_index])  # (Q, D)
        return RecommenderOutput(query_embeddings=self._comparable(queries))

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """`(I+1, D)`, row 0 padding; or `(*item_ids.shape, D)`. Of unit length when `similarity` is `cosine`."""
        table = self.item_embedding.weight
        if item_ids is None:
            return self._comparable(table)
        # Sparse: a few rows are added to the dense gradient that the histories give, not a second table as large.
        return self._comparable(F.embedding(item_ids, table, PADDING, sparse=True))

    def _comparable(self, embeddings: Tensor) -> Tensor:
        return F.normalize(embeddings, dim=-1) if self.config.similarity == "cosine" else embeddings

    def catalogue_log_probs(self, query_embeddings: Tensor, item_ids: Tensor) -> Tensor:
        queries, masked = query_embeddings / self.config.temperature, self.config.mask_padding_logit
        return losses.catalogue_log_probs(queries, self.item_embeddings(), item_ids, mask_padding=masked)

    def collator(self, *, tail: bool = False, seen: bool = False, training: bool = False) -> QueryCollator:
        return QueryCollator(
            self.config.max_position_embeddings,
            tail=tail,
            seen=seen,
            pack=not self.config.attend_padding,
            padding_side=self.config.padding_side,
        )

    def train(self, mode: bool = True) -> SASRecModel:
        if self.item_projection is not None:  # here, as loading makes every parameter trainable again, ends in eval()
            self.item_projection.requires_grad_(False)
        return super().train(mode)

    # ---- new items --------------------------------------------------------------------------------------------

    @torch.no_grad()
    def set_item_projection(self, weight: Tensor, bias: Tensor) -> None:
        """The map from teacher space to the item table, `weight (D, P)` and `bias (D,)`; it is saved with the model."""
        width, size = weight.shape
        self.item_projection = nn.Linear(size, width).to(self.item_embedding.weight).requires_grad_(False)
        self.item_projection.weight.copy_(weight)
        self.item_projection.bias.copy_(bias)
        self.config.item_projection_size = size

    @torch.no_grad()
    def add_items(
        self,
        item_ids: List[str],
        embeddings: Tensor | None = None,
        *,
        teacher_embeddings: Tensor | np.ndarray | None = None,
    ) -> None:
        """Grow the catalogue. Old rows stay bit-equal, and new items can be recommended at once.

        Args:
            embeddings: `(n, D)` rows of the item table; the mean of the old rows without either argument.
            teacher_embeddings: `(n, P)` in the teacher space of the student's `item_projection`, e.g.
                `teacher.content_embeddings(rows)`.

        Raises:
            DataError: an id is already in the catalogue, an array has another shape or is not finite.
            ConfigError: both arrays are given, or no projection was fitted.
        """
        if teacher_embeddings is not None:
            if embeddings is not None:
                raise ConfigError("embeddings and teacher_embeddings both say where new items go; give one of them.")
            embeddings = self._project(torch.as_tensor(teacher_embeddings), len(item_ids))
        super().add_items(item_ids, embeddings)

    def _project(self, teacher_embeddings: Tensor, count: int) -> Tensor:
        """Rows of the item table `(n, D)` from teacher space `(n, P)`."""
        projection = self.item_projection
        if projection is None or not projection.weight.any():
            raise ConfigError(
                "this student ships no fitted item_projection. Fit it once, on the catalogue it was trained with: "
                "fit_item_projection(student, teacher.content_embeddings())."
            )
        expected = (count, projection.in_features)
        if tuple(teacher_embeddings.shape) != expected:
            raise DataError(
                f"teacher_embeddings must be {expected} (new items, width of the space that item_projection was fitted "
                f"on), got {tuple(teacher_embeddings.shape)}. Embed the new items with the teacher of the fit."
            )
        wrong = (~torch.isfinite(teacher_embeddings).all(dim=1)).nonzero().flatten()
        if len(wrong):
            raise DataError(f"teacher_embeddings row {int(wrong[0])} holds NaN or infinite values. Embed it again.")
        rows = projection(teacher_embeddings.to(projection.weight))  # (n, D)
        if self.config.similarity == "dot":
            return rows
        # Scores compare directions, but a history reads rows as they are: new ones get the usual length.
        return F.normalize(rows, dim=-1) * self.item_embedding.weight[1:].norm(dim=-1).mean()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.item_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.item_embedding = cast(nn.Embedding, value)

"""SASRec: item and position embeddings through a causal Transformer; one forward answers every query of a batch."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from ... import losses
from ...catalogue import PADDING
from ...collators import QueryCollator
from ...modules.dropout import Dropout
from ...modules.sequence_encoder import SequenceEncoder, causal_mask
from ...recommender import RecommenderModel, RecommenderOutput
from .configuration_sasrec import SASRecConfig


class SASRecModel(RecommenderModel):
    """Self-attentive sequential recommendation (Kang and McAuley 2018, arXiv 1808.09781)."""

    config: SASRecConfig
    config_class = SASRecConfig

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
        self.post_init()

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

    def collator(self, *, tail: bool = False, seen: bool = False) -> QueryCollator:
        return QueryCollator(
            self.config.max_position_embeddings,
            tail=tail,
            seen=seen,
            pack=not self.config.attend_padding,
            padding_side=self.config.padding_side,
        )

    def get_input_embeddings(self) -> nn.Embedding:
        return self.item_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.item_embedding = cast(nn.Embedding, value)

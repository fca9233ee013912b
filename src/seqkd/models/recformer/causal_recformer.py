"""Recformer that reads forwards: one pass over a history answers every query in it.

Recformer reads a history backwards and as a whole, so each query is a pass of its own. Here a token sees the tokens of
its own item and of older items, and a query is the mean of the newest item's tokens. It is not the paper's model, but
its way of seeing items, at a cost that a CPU can carry: with n items in a history, n queries for the price of one.

While items stand still within an epoch (the paper's first stage), nothing but the reader of histories learns. A matrix
between an item's text vector and the vector it is ranked by, the identity at first, lets items learn in every step too;
with `use_item_embedding` each item also learns a vector of its own, added to its tokens where it is read and to its
text vector where it is ranked, as in UniSRec's transductive setting.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence as List
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from ...batches.collators import UNLABELLED, QueryCollator
from ...modules.embedding_tables import add_rows
from ...recommenders.recommender import RecommenderModel, RecommenderOutput
from . import dense_attention
from .configuration_recformer import CausalRecformerConfig
from .modeling_recformer import RecformerModel
from .processing_recformer import ItemTokens
from .token_batch import TOKENS


class Ranking(nn.Linear):
    """From what an item's text says to what it is ranked by; at first the same."""


class LearnedVectors(nn.Embedding):
    """What is learned about each item beside its text; at first nothing."""


class CausalRecformerModel(RecformerModel):
    """See the module. Token positions count within an item, item positions from the oldest one on.

    There is no `<s>`, but for an item without text, which is its `<s>` alone: it still asks, from what came before it.
    """

    config: CausalRecformerConfig  # type: ignore[assignment]
    config_class = CausalRecformerConfig
    main_input_name = "item_ids"
    inputs = RecommenderModel.inputs

    def __init__(self, config: CausalRecformerConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.ranking = Ranking(width, width, bias=False)
        self.item_embedding = LearnedVectors(config.num_items + 1, width) if config.use_item_embedding else None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Ranking):
            init.eye_(module.weight)
        elif isinstance(module, LearnedVectors):
            init.zeros_(module.weight)
        else:
            super()._init_weights(module)

    def forward(  # type: ignore[override]
        self, item_ids: Tensor, sequence_ids: Tensor, position_ids: Tensor, query_index: Tensor
    ) -> RecommenderOutput:
        """Embed the queries of a packed batch (see `QueryCollator`): `query_embeddings (Q, D)` of unit length."""
        states = self.read(item_ids, sequence_ids, position_ids)
        return RecommenderOutput(query_embeddings=F.normalize(states.flatten(0, 1)[query_index].float(), dim=-1))

    def encode_histories(self, histories: Tensor, *, learned: bool = True) -> Tensor:
        """`(Q, D)` of unit length, of `histories (Q, n)`, newest first and 0 padded, as everywhere in Recformer.

        `learned` False leaves the learned vectors out: the text alone.
        """
        histories = histories[:, : self.config.max_position_embeddings]
        lengths = (histories != 0).sum(dim=1, keepdim=True)  # (Q, 1)
        place = torch.arange(histories.shape[1], device=histories.device).expand(len(histories), -1)  # (Q, n)
        oldest_first = histories.gather(1, (lengths - 1 - place).clamp(min=0)).masked_fill(place >= lengths, 0)
        states = self.read(oldest_first, (oldest_first != 0).long(), place, learned=learned)
        newest = (lengths - 1).clamp(min=0)[..., None].expand(-1, -1, states.shape[2])
        return F.normalize(states.gather(1, newest).squeeze(1).float(), dim=-1)

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """`(I+1, D)`, row 0 padding; or `(*item_ids.shape, D)`. Of unit length; learns, but for the text vectors."""
        vectors = self.ranking(super().item_embeddings(item_ids))
        if self.item_embedding is not None:
            vectors = vectors + (self.item_embedding.weight if item_ids is None else self.item_embedding(item_ids))
        return F.normalize(vectors, dim=-1)

    def content_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """The same without learned vectors."""
        return F.normalize(self.ranking(super().item_embeddings(item_ids)), dim=-1)

    @torch.no_grad()
    def add_items(
        self, item_ids: List[str], embeddings: Tensor | None = None, *, features: ItemTokens | None = None
    ) -> None:
        """As in `RecformerModel`; a learned vector starts at zero, so a new item is its text alone."""
        super().add_items(item_ids, embeddings, features=features)
        add_rows(self.item_tables, len(item_ids), torch.zeros(len(item_ids), self.config.hidden_size))

    @property
    def item_tables(self) -> List[nn.Module]:
        return [] if self.item_embedding is None else [self.item_embedding]

    def _text_of(self, ids: Tensor) -> Tensor:
        return self.encode_histories(ids[:, None], learned=False)

    def read(self, item_ids: Tensor, sequence_ids: Tensor, position_ids: Tensor, *, learned: bool = True) -> Tensor:
        """Mean state of every item's tokens, knowing all older items: `(B, H, D)` for arguments `(B, H)`."""
        rows = max(1, TOKENS // max(1, item_ids.shape[1] * self.config.item_length))  # few enough for the caches
        parts = zip(item_ids.split(rows), sequence_ids.split(rows), position_ids.split(rows), strict=True)
        half = self.config.encoder_dtype == "bfloat16"
        with torch.autocast(item_ids.device.type, torch.bfloat16) if half else nullcontext():
            return torch.cat([self._read(*part, learned=learned) for part in parts])

    def _read(self, item_ids: Tensor, sequence_ids: Tensor, position_ids: Tensor, *, learned: bool) -> Tensor:
        lengths = self.item_lengths[item_ids].long()  # (B, H)
        longest = int(F.pad(lengths.flatten(), (1, 0), value=1).max())  # 1 also where there are no histories
        words = self.item_input_ids[item_ids][..., :longest].long()
        words[..., 0].masked_fill_(lengths == 0, self.config.bos_token_id)
        position = torch.arange(1, longest + 1, device=item_ids.device)
        present = position <= lengths.clamp(min=1)[..., None]  # (B, H, L)
        embeddings = self.embeddings
        states = embeddings.word_embeddings(words)
        states = states + embeddings.position_embeddings(position + embeddings.pad)
        states = states + embeddings.token_type_embeddings(self.item_token_types[item_ids][..., :longest].long())
        states = states + embeddings.item_position_embeddings(position_ids + 1)[:, :, None]
        if learned and self.item_embedding is not None:
            states = states + self.item_embedding(item_ids)[:, :, None]
        states = embeddings.dropout(embeddings.LayerNorm(states)).flatten(1, 2)  # (B, H L, D)

        same = sequence_ids[:, :, None] == sequence_ids[:, None, :]  # (B, H, H)
        older = same & (position_ids[:, :, None] >= position_ids[:, None, :])
        seen = older.repeat_interleave(longest, dim=1).repeat_interleave(longest, dim=2)  # (B, H L, H L)
        seen = (seen & present.flatten(1)[:, None, :])[:, None]
        for layer in self.encoder.layer:
            states = dense_attention.local(layer, states, seen)
        weights = present[..., None].to(states.dtype)
        return (states.unflatten(1, present.shape[1:]) * weights).sum(dim=2) / weights.sum(dim=2)

    def collator(self, *, tail: bool = False, seen: bool = False, training: bool = False) -> QueryCollator:  # type: ignore[override]
        """The packed batches that every recommender reads; all queries of a row, also in training."""
        return QueryCollator(self.config.max_position_embeddings, tail=tail, seen=seen)


class CausalRecformerForPretraining(CausalRecformerModel):
    """Pre-trained by the item-item contrast alone: a token that sees no newer ones has no use for masked words.

    As in `RecformerForPretraining`, `loss_type` is `sampled_softmax` whatever the configuration says.
    """

    def __init__(self, config: CausalRecformerConfig) -> None:
        config = copy.deepcopy(config)
        config.loss_type = "sampled_softmax"
        super().__init__(config)

    def loss(self, query_embeddings: Tensor, targets: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Each labelled query against the distinct targets of the step, `(Q,)`; see `RecformerForPretraining`."""
        distinct = torch.unique(targets if candidates is None else candidates)  # sorted
        items = F.normalize(self.ranking(self.encode_histories(distinct[:, None])), dim=-1)
        logits = query_embeddings / self.config.temperature @ items.T  # (Q, distinct)
        return F.cross_entropy(logits.float(), torch.searchsorted(distinct, targets), reduction="none")

    def training_loss(self, output: RecommenderOutput, targets: Tensor, step_targets: Tensor | None = None) -> Tensor:
        """The contrast of each labelled query, `(Q,)`; 0 where unlabelled."""
        labelled = targets != UNLABELLED
        candidates = None if step_targets is None else step_targets[step_targets != UNLABELLED]
        loss = self.loss(output.query_embeddings[labelled], targets[labelled], candidates)
        return torch.zeros(len(targets), device=targets.device).masked_scatter(labelled, loss)

"""Pre-training of Recformer: histories against the items that follow them, and a masked language model on both."""

from __future__ import annotations

import copy
import logging
import os
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...batches.collators import UNLABELLED
from ...batches.history_collator import HistoryCollator
from ...errors import ConfigError
from ...recommenders.recommender import RecommenderOutput
from .configuration_recformer import RecformerConfig
from .masking import IGNORED, mask_words, number_words
from .modeling_recformer import RecformerModel
from .processing_recformer import ItemTokens
from .text_encoder import head_from
from .token_batch import TokenBatch

logger = logging.getLogger(__name__)


@dataclass
class RecformerPretrainingOutput(RecommenderOutput):
    """`histories (Q, n)`: what the queries were embedded from, to be read again with words masked."""

    histories: Tensor | None = None


class LanguageModelHead(nn.Module):
    """Longformer's head: states `(..., D)` to logits over the vocabulary, `(..., V)`; not tied to the embeddings."""

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(self, states: Tensor) -> Tensor:
        return self.decoder(self.layer_norm(F.gelu(self.dense(states))))


class RecformerForPretraining(RecformerModel):
    """Recformer (arXiv:2305.13731, section 2.3.1) over the joint catalogue of several domains (`combine`).

    Every item that is contrasted with is read alone, with gradient, in the step that needs it; the vectors that
    `encode_items` keeps are for evaluation only (see `EncodeItems`). The catalogue is never scored as a whole in
    training, so `loss_type` is `sampled_softmax` whatever the configuration says.
    """

    item_words: Tensor  # (I+1, L) the word of the item that a token belongs to, -1 where there is none

    def __init__(self, config: RecformerConfig) -> None:
        config = copy.deepcopy(config)
        config.loss_type = "sampled_softmax"
        if not 0 <= config.mask_token_id < config.vocab_size:
            raise ConfigError(
                f"mask_token_id must be within 0..{config.vocab_size - 1}, got {config.mask_token_id}. Take it from "
                "the tokenizer of the items."
            )
        super().__init__(config)
        self.lm_head = LanguageModelHead(config)
        words = torch.full((config.num_items + 1, config.item_length), -1, dtype=torch.int16)
        self.register_buffer("item_words", words)
        self.post_init()

    def _rows(self, features: ItemTokens, count: int) -> dict[str, Tensor]:
        rows, width = super()._rows(features, count), self.config.item_length
        words = torch.as_tensor(features.word_ids)[:, :width]
        return rows | {"item_words": F.pad(words, (0, width - words.shape[1]), value=-1).to(self.item_words)}

    def collator(self, *, tail: bool = False, seen: bool = False, training: bool = False) -> HistoryCollator:
        """As of a Recformer; in training the query of a row is drawn from its newest half."""
        return HistoryCollator(
            self.config.max_position_embeddings, tail=tail, seen=seen, sample_one=training, newest_half=training
        )

    def forward(self, histories: Tensor) -> RecformerPretrainingOutput:  # type: ignore[override]
        """Embed the queries, `(Q, D)`, from `histories (Q, n)`, newest first."""
        output = super().forward(histories)
        return RecformerPretrainingOutput(query_embeddings=output.query_embeddings, histories=histories)

    def loss(self, query_embeddings: Tensor, targets: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Item-item contrast of each labelled query, `(Q,)` (eq. 7): its target among the distinct targets.

        The authors' in-batch cross-entropy is the same where no target occurs twice; where one does, they make it
        its own negative.

        Args:
            query_embeddings: `(Q, D)`.
            targets: `(Q,)` internal ids, none unlabelled.
            candidates: `(C,)` targets of the whole optimizer step, if `targets` are only a part of them: with them,
                accumulated and distributed steps have the same negatives as one large batch. Each part reads all.
        """
        distinct = torch.unique(targets if candidates is None else candidates)  # sorted
        items = self.encode_histories(distinct[:, None])  # an item alone is a history of one
        logits = query_embeddings / self.config.temperature @ items.T  # (Q, distinct)
        return F.cross_entropy(logits.float(), torch.searchsorted(distinct, targets), reduction="none")

    def mlm_loss(self, histories: Tensor) -> Tensor:
        """Cross-entropy of the masked words, a scalar: the mean over all masked tokens of `histories (Q, n)`."""
        total = self.lm_head.decoder.bias.sum() * 0  # has a gradient also where no query is there
        count = torch.zeros_like(total)
        for _, tokens in self.batches(histories):
            word_ids = self.item_words.flatten()[tokens.slots].masked_fill(tokens.slots < 0, -1)
            masked, labels = mask_words(
                tokens.input_ids,
                number_words(word_ids, tokens.item_position_ids),
                mask_token_id=self.config.mask_token_id,
                vocab_size=self.config.vocab_size,
                probability=self.config.mlm_probability,
            )
            total = total + self.token_loss(tokens._replace(input_ids=masked), labels)
            count = count + (labels != IGNORED).sum()
        return total / count.clamp(min=1)

    def token_loss(self, tokens: TokenBatch, labels: Tensor) -> Tensor:
        """Summed cross-entropy of the tokens that `labels (B, T)` ask for."""
        asked = labels != IGNORED
        logits = self.lm_head(self._encode_tokens(tokens)[asked])  # (asked, V): never of all tokens
        return F.cross_entropy(logits.float(), labels[asked], reduction="sum")

    def training_loss(self, output: RecommenderOutput, targets: Tensor, step_targets: Tensor | None = None) -> Tensor:
        """The contrast plus `mlm_weight` times the masked language model on histories and on targets, `(Q,)`.

        Each labelled query carries the mean over the masked tokens of this batch, so that the mean over the queries
        is that mean; like the authors' it is local to a micro-batch. 0 where unlabelled.

        Args:
            targets: `(Q,)` internal ids or `UNLABELLED`.
            step_targets: `(C,)` labels of the whole optimizer step: the items contrasted with.
        """
        assert isinstance(output, RecformerPretrainingOutput) and output.query_embeddings is not None
        labelled = targets != UNLABELLED
        candidates = None if step_targets is None else step_targets[step_targets != UNLABELLED]
        loss = self.loss(output.query_embeddings[labelled], targets[labelled], candidates)
        if self.config.mlm_weight and output.histories is not None:
            mlm = self.mlm_loss(output.histories[labelled]) + self.mlm_loss(targets[labelled][:, None])
            loss = loss + self.config.mlm_weight * mlm
        return torch.zeros(len(targets), device=targets.device).masked_scatter(labelled, loss)

    @classmethod
    def from_text_encoder(
        cls, name: str | os.PathLike, *, num_hidden_layers: int | None = None, num_items: int = 1, **config_fields: Any
    ) -> RecformerForPretraining:
        """As `RecformerModel.from_text_encoder`, with the language model head of `name`.

        Where the checkpoint holds no such head, its dense layer starts as the identity and its decoder as a copy of
        the word embeddings.
        """
        settings = {"num_hidden_layers": num_hidden_layers, "num_items": num_items, **config_fields}
        model = cast(RecformerForPretraining, super().from_text_encoder(name, **settings))
        head = head_from(name)
        if head is None:
            logger.info("%s has no language model head; one is made of its word embeddings.", name)
            words, width = model.embeddings.word_embeddings.weight.detach(), model.config.hidden_size
            head = {"dense.weight": torch.eye(width), "decoder.weight": words.clone()}
            head |= {"dense.bias": torch.zeros(width), "decoder.bias": torch.zeros(len(words))}
            head |= {"layer_norm.weight": torch.ones(width), "layer_norm.bias": torch.zeros(width)}
        model.lm_head.load_state_dict(head)
        return model

"""Pre-training of UniSRec on several domains at once: two contrastive losses instead of a softmax over a catalogue."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...batches.collators import UNLABELLED
from ...recommenders.recommender import RecommenderOutput
from .augmentation import drop_items
from .configuration_unisrec import UniSRecConfig
from .contrastive import sequence_item_contrast, sequence_sequence_contrast
from .modeling_unisrec import UniSRecModel


@dataclass
class UniSRecPretrainingOutput(RecommenderOutput):
    """`augmented_embeddings (Q, D)`: every query read from the augmented batch; `twin (Q,)`: which of them are exact.

    Both are None outside training.
    """

    augmented_embeddings: Tensor | None = None
    twin: Tensor | None = None


class UniSRecForPretraining(UniSRecModel):
    """UniSRec over the joint catalogue of several domains (`combine`), their text vectors one below the other.

    Every query of a batch is a training example; its negatives are the other targets of the batch, of all domains.
    `for_domain` turns the result into a recommender of one domain. The catalogue is never scored as a whole, so
    `loss_type` is `sampled_softmax` whatever the configuration says.

    The authors encode each target and each prefix on its own; here an item that occurs several times in a batch passes
    the noisy adaptor once, and all prefixes of a sequence share one drop mask.
    """

    augmented_features: Tensor | None

    def __init__(self, config: UniSRecConfig) -> None:
        config = copy.deepcopy(config)
        config.loss_type = "sampled_softmax"
        super().__init__(config)
        self.register_buffer("augmented_features", None, persistent=False)  # training data, not part of the model

    @torch.no_grad()
    def set_augmented_features(self, features: Tensor | np.ndarray) -> None:
        """Text vectors of items 1..I with words left out, `(I, P)`: `encode_texts(texts, word_drop=0.15)`.

        Without them every batch is augmented by dropping items.
        """
        checked = self._checked(features, self.config.num_items)
        self.augmented_features = torch.cat([torch.zeros_like(checked[:1]), checked])

    def forward(
        self, item_ids: Tensor, sequence_ids: Tensor, position_ids: Tensor, query_index: Tensor
    ) -> UniSRecPretrainingOutput:
        """Embed the queries and, in training, their augmented twins: one coin per batch, items or words are dropped."""
        output = super().forward(item_ids, sequence_ids, position_ids, query_index)
        if not self.training or not self.config.seq_seq_weight:
            return UniSRecPretrainingOutput(query_embeddings=output.query_embeddings)
        keep = torch.rand(item_ids.shape, device=item_ids.device) >= self.config.item_drop_ratio
        by_items = float(torch.rand(())) < self.config.item_drop_probability  # the CPU's coin: no wait for a device
        batch = (item_ids, sequence_ids, position_ids, query_index)
        if by_items or not self.changes_contents:
            augmented, twin = self.without_items(*batch, keep)
        else:
            augmented, twin = self.without_words(*batch, keep), torch.ones_like(query_index, dtype=torch.bool)
        return UniSRecPretrainingOutput(output.query_embeddings, augmented, twin)

    @property
    def changes_contents(self) -> bool:
        """Whether there is another way to augment than dropping items."""
        return self.augmented_features is not None

    def without_items(
        self, item_ids: Tensor, sequence_ids: Tensor, position_ids: Tensor, query_index: Tensor, keep: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Query embeddings `(Q, D)` without the items where `keep (B, H)` is 0, and which are exact, `(Q,)`."""
        dropped = drop_items(item_ids, sequence_ids, position_ids, query_index, keep)
        states = self._encode(self._vectors(dropped.item_ids), dropped.sequence_ids, dropped.position_ids)
        return F.normalize(states.flatten(0, 1)[dropped.query_index], dim=-1), dropped.twin

    def without_words(
        self, item_ids: Tensor, sequence_ids: Tensor, position_ids: Tensor, query_index: Tensor, keep: Tensor
    ) -> Tensor:
        """Query embeddings `(Q, D)` with `augmented_features` for the items where `keep (B, H)` is 0."""
        items = torch.where(keep.bool()[..., None], self._vectors(item_ids), self._changed_vectors(item_ids))
        states = self._encode(items, sequence_ids, position_ids)
        return F.normalize(states.flatten(0, 1)[query_index], dim=-1)

    def _changed_vectors(self, item_ids: Tensor) -> Tensor:
        """Item vectors `(*item_ids.shape, D)` with words left out."""
        return self._vectors(item_ids, self.augmented_features)

    def loss(self, query_embeddings: Tensor, targets: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Sequence-item contrast of each labelled query, `(Q,)` (eq. 7).

        Args:
            query_embeddings: `(Q, D)`.
            targets: `(Q,)` internal ids, none unlabelled.
            candidates: `(C,)` targets of the whole optimizer step, if `targets` are only a part of them: with them,
                accumulated and distributed steps have the same negatives as one large batch.
        """
        distinct, counts = torch.unique(targets if candidates is None else candidates, return_counts=True)
        items = self.item_embeddings(distinct)  # (C, D)
        own = self.item_embeddings(targets) if candidates is not None else items[torch.searchsorted(distinct, targets)]
        queries = query_embeddings / self.config.temperature
        return sequence_item_contrast(
            (queries * own).sum(-1),
            queries @ items.T,
            targets,
            distinct,
            counts.float(),
            legacy=self.config.legacy_false_negative,
        )

    def sequence_loss(self, output: UniSRecPretrainingOutput, targets: Tensor) -> Tensor:
        """Sequence-sequence contrast, `(Q,)` (eq. 8); its mean over the labelled queries is that over exact twins.

        A query that is unlabelled or has no exact twin yields 0. The negatives are those of this batch alone.
        """
        queries, augmented, twin = output.query_embeddings, output.augmented_embeddings, output.twin
        loss = torch.zeros(len(targets), device=targets.device)
        if queries is None or augmented is None or twin is None:
            return loss
        labelled = targets != UNLABELLED
        rows = (twin & labelled).nonzero().flatten()
        logits = queries[rows] @ augmented[rows].T / self.config.temperature  # (rows, rows)
        contrast = sequence_sequence_contrast(logits, targets[rows], legacy=self.config.legacy_false_negative)
        return loss.index_copy(0, rows, contrast * (labelled.sum() / max(len(rows), 1)))

    def training_loss(self, output: RecommenderOutput, targets: Tensor, step_targets: Tensor | None = None) -> Tensor:
        """Both contrasts, `(Q,)`: sequence-item plus `seq_seq_weight` times sequence-sequence; 0 where unlabelled.

        Args:
            targets: `(Q,)` internal ids or `UNLABELLED`.
            step_targets: `(C,)` labels of the whole optimizer step: the items contrasted with.
        """
        assert isinstance(output, UniSRecPretrainingOutput) and output.query_embeddings is not None
        labelled = targets != UNLABELLED
        candidates = None if step_targets is None else step_targets[step_targets != UNLABELLED]
        seq_item = self.loss(output.query_embeddings[labelled], targets[labelled], candidates)
        total = torch.zeros(len(targets), device=targets.device).masked_scatter(labelled, seq_item)
        return total + self.config.seq_seq_weight * self.sequence_loss(output, targets)

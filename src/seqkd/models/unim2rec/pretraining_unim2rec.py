"""Pre-training of UniM²Rec: sequences against fused items and single modalities, and modalities against each other."""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..unisrec.contrastive import sequence_item_contrast
from ..unisrec.pretraining_unisrec import UniSRecForPretraining
from .configuration_unim2rec import UniM2RecConfig
from .modeling_unim2rec import UniM2RecModel


class UniM2RecForPretraining(UniSRecForPretraining, UniM2RecModel):
    """UniM²Rec over the joint catalogue of several domains; used as `UniSRecForPretraining`.

    The loss of a query is, with a temperature of 0.07 everywhere (reconstructed),

        seq-item(fused) + lambda_1 mean_m seq-item(A_m) + lambda_2 alignment + lambda_3 seq-seq.

    The batches that are not augmented by dropping items have changed contents: where `item_drop_ratio` strikes, an item
    with several modalities loses one, and words if `set_augmented_features` was called.
    """

    config: UniM2RecConfig  # type: ignore[assignment]
    config_class = UniM2RecConfig

    @property
    def changes_contents(self) -> bool:
        return True

    def _changed_vectors(self, item_ids: Tensor) -> Tensor:
        """Item vectors `(*item_ids.shape, D)` of which one modality is hidden, and words left out where known."""
        distinct, where = torch.unique(item_ids, return_inverse=True)
        x = (self.item_features if self.augmented_features is None else self.augmented_features)[distinct]
        available = self.adaptor.hide(self.adaptor.available(x), 1.0)
        changed = self._compose(distinct, self.adaptor.modalities(x, available), available)
        return F.embedding(where, changed.read)

    def loss(self, query_embeddings: Tensor, targets: Tensor, candidates: Tensor | None = None) -> Tensor:
        """All but the sequence-sequence contrast, `(Q,)`; every target is adapted once for all of them.

        A query whose target lacks a modality has no contrast with it: the mean over the queries of the step is that
        over those which have. The alignment belongs to the step, so that each query carries all of it.

        Args:
            query_embeddings: `(Q, D)`.
            targets: `(Q,)` internal ids, none unlabelled.
            candidates: `(C,)` targets of the whole optimizer step, `targets` among them: with them, accumulated and
                distributed steps have the same negatives as one large batch.
        """
        config = self.config
        candidates = targets if candidates is None else candidates
        distinct, counts = torch.unique(candidates, return_counts=True)
        own = torch.searchsorted(distinct, targets)  # (Q,) the column of the own target
        x = self.item_features[distinct]
        available = self.adaptor.available(x)
        vectors = self.adaptor.modalities(x, available)  # (C, M, D)
        visible = self.adaptor.hide(available, config.modality_dropout) if self.training else available

        everyone = torch.ones_like(distinct, dtype=torch.bool)
        fused = self._compose(distinct, vectors, visible).compared
        total = self._contrast(query_embeddings, fused, own, counts, everyone)
        if config.per_modality_weight:
            units = F.normalize(vectors, dim=-1)
            for m, there in enumerate(available.unbind(1)):
                contrast = self._contrast(query_embeddings, units[:, m], own, counts, there)
                total = total + config.per_modality_weight / len(config.modalities) * contrast
        if config.align_weight:
            total = total + config.align_weight * self.alignment(vectors, available)
        return total

    def _contrast(self, queries: Tensor, items: Tensor, own: Tensor, counts: Tensor, there: Tensor) -> Tensor:
        """Sequence-item contrast with those `items (C, ..., D)` that are `there (C,)`, `(Q,)`; see `loss`."""
        asked = there[own].nonzero().squeeze(1)  # queries whose target is there
        columns = there.nonzero().squeeze(1)
        place = torch.searchsorted(columns, own[asked])
        similarity = self._similarities if items.dim() == 3 else torch.Tensor.inner
        logits = similarity(queries[asked], items[columns]) / self.config.temperature
        contrast = sequence_item_contrast(
            logits.gather(1, place[:, None]).squeeze(1),
            logits,
            own[asked],
            columns,
            counts[columns].float(),
            legacy=self.config.legacy_false_negative,
        )
        share = counts.sum() / counts[columns].sum()  # the mean over some queries of the step as one over all
        return contrast.new_zeros(len(queries)).index_copy(0, asked, contrast * share)

    def alignment(self, vectors: Tensor, available: Tensor) -> Tensor:
        """Symmetric InfoNCE between the modalities of the same items, a scalar: the mean over pairs of modalities.

        Args:
            vectors: `(n, M, D)` of distinct items.
            available: `(n, M)`; a pair contrasts the items that have both.
        """
        units, losses = F.normalize(vectors, dim=-1), []
        for a, b in combinations(range(vectors.shape[1]), 2):
            both = available[:, a] & available[:, b]
            logits = units[both, a] @ units[both, b].T / self.config.temperature  # (n, n)
            matches = torch.arange(len(logits), device=logits.device)
            pair = F.cross_entropy(logits, matches, reduction="sum") + F.cross_entropy(
                logits.T, matches, reduction="sum"
            )
            losses.append(pair / (2 * max(len(logits), 1)))
        return torch.stack(losses).mean() if losses else vectors.new_zeros(())

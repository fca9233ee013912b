"""UniM²Rec: items as text and image, each through experts of its own, fused; histories through SASRec's encoder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from collections.abc import Sequence as List
from difflib import get_close_matches
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import initialization as init

from ...catalogue import PADDING, Catalogue
from ...errors import DataError
from ..unisrec.item_vectors import ItemVectors, checked_vectors
from ..unisrec.modeling_unisrec import UniSRecModel
from .configuration_unim2rec import UniM2RecConfig
from .dynamic_scores import dynamic_log_probs, dynamic_scores
from .fusion import ModalityFusion

logger = logging.getLogger(__name__)
Features = Mapping[str, Tensor | np.ndarray]


class UniM2RecModel(UniSRecModel):
    """Universal multi-modal multi-domain representations (Sun et al., arXiv:2311.01831), reconstructed.

    UniSRec with several modalities: a row of the buffer `item_features (I+1, P)` holds them side by side, zeros where
    one is missing, and the adaptor is a `ModalityFusion`. Set them by `set_item_features({"text": ..., "image": ...})`.

    With `fusion="dynamic_shared"` a score is no dot product (`scores_by_dot_product`): `item_embeddings` are then the
    means of an item's modalities, which tell which items are alike, but do not score.
    """

    config: UniM2RecConfig  # type: ignore[assignment]
    config_class = UniM2RecConfig
    adaptor: ModalityFusion

    def _new_adaptor(self, config: UniM2RecConfig) -> ModalityFusion:  # type: ignore[override]
        return ModalityFusion(config)

    def _recommender_of(self, config: UniM2RecConfig) -> UniM2RecModel:  # type: ignore[override]
        return UniM2RecModel(config)

    def _init_weights(self, module: torch.nn.Module) -> None:
        if isinstance(module, ModalityFusion):
            for start in (module.missing, module.missing_item):
                if start is not None:
                    init.normal_(start, std=self.config.initializer_range)
            for start in (module.gate, module.sharpness):
                if start is not None:
                    init.zeros_(start)
        else:
            super()._init_weights(module)

    # ---- items ------------------------------------------------------------------------------------------------

    def set_item_features(self, features: Features) -> None:  # type: ignore[override]
        """The vectors of items 1..I in each modality, `{"text": (I, P_t), "image": (I, P_v)}`, in catalogue order.

        A row of zeros is missing, and so is every row of a modality that is left out (which is warned about).

        Raises:
            DataError: an unknown modality, another shape, or a value that is not finite.
        """
        super().set_item_features(features)  # type: ignore[arg-type]

    def add_items(  # type: ignore[override]
        self, item_ids: List[str], embeddings: Tensor | None = None, *, features: Features | None = None
    ) -> None:
        """Grow the catalogue; old rows stay bit-equal. New items can be recommended at once, from their content alone.

        Args:
            features: `{"text": (n, P_t), "image": (n, P_v)}` of the new items, as in `set_item_features`.
            embeddings: `(n, D)` learned vectors when `use_item_embedding`; zeros where not given.

        Raises:
            DataError: an id is already in the catalogue, or an array is missing or has another shape.
            ConfigError: `embeddings` for an inductive model, which has none.
        """
        if features is None:
            raise DataError("UniM²Rec reads items' content: add_items(item_ids, features={'text': ..., 'image': ...}).")
        super().add_items(item_ids, embeddings, features=features)  # type: ignore[arg-type]

    def for_domain(  # type: ignore[override]
        self, catalogue: Catalogue, features: Features, item_counts: Tensor | None = None, **changes: Any
    ) -> UniM2RecModel:
        """A model of another domain that starts from the weights shared by all; see `UniSRecModel.for_domain`."""
        return super().for_domain(catalogue, features, item_counts, **changes)  # type: ignore[arg-type, return-value]

    def _checked(self, features: Features, rows: int) -> Tensor:  # type: ignore[override]
        """The modalities side by side, `(rows, P)`."""
        names = self.config.modalities
        if not isinstance(features, Mapping):
            raise DataError(f"features must be a dict with the vectors of {names}, got {type(features).__name__}.")
        for name in features:
            if name not in names:
                close = get_close_matches(str(name), names, n=1)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                raise DataError(f"unknown modality {name!r}; this model reads {names}.{hint}")
        parts = []
        for name, size in zip(names, self.config.sizes, strict=True):
            if name not in features:
                logger.warning("no %s vectors are given: all %d items count as without %s.", name, rows, name)
                parts.append(self.item_features.new_zeros(rows, size))
                continue
            parts.append(checked_vectors(features[name], rows, size, name).to(self.item_features))
            missing = int((~parts[-1].any(dim=1)).sum())
            if missing:
                logger.info("%d of %d items have no %s.", missing, rows, name)
        return torch.cat(parts, dim=1)

    @torch.no_grad()
    def modality_weights(self, item_ids: Tensor) -> Tensor:
        """How much each modality counts in items `(n,)`, `(n, M)`: 0 where missing, all 0 for an item without any."""
        vectors, available = self.adaptor.read(self.item_features[item_ids])
        return self.adaptor.weights(vectors, available)

    def modality_embeddings(self, item_ids: Tensor) -> dict[str, Tensor]:
        """Items `(n,)` as each modality sees them, `(n, D)` of unit length; zeros where it is missing."""
        vectors, _ = self.adaptor.read(self.item_features[item_ids])
        return dict(zip(self.config.modalities, F.normalize(vectors, dim=-1).unbind(1), strict=True))

    # ---- scores -----------------------------------------------------------------------------------------------

    @property
    def scores_by_dot_product(self) -> bool:
        return self.config.fusion != "dynamic_shared"

    def _adapt(self, item_ids: Tensor, features: Tensor) -> ItemVectors:
        vectors, available = self.adaptor.read(features[item_ids])
        return self._compose(item_ids, vectors, available)

    def _compose(self, item_ids: Tensor, vectors: Tensor, available: Tensor) -> ItemVectors:
        """Items `(n,)` from their modalities `(n, M, D)`: fused to be read; to be compared fused too, or one by one."""
        read = self.adaptor.fuse(vectors, available)
        learned = None if self.item_embedding is None else self.item_embedding(item_ids)
        if learned is not None:
            read = read + learned
        if self.scores_by_dot_product:
            return ItemVectors(read, F.normalize(read, dim=-1))
        views = self.adaptor.views(vectors, available)
        if learned is not None:
            views = torch.cat([views, F.normalize(learned, dim=-1)[:, None]], dim=1)
        return ItemVectors(read, views)  # (n, K, D), K = M or M + 1

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        if self.scores_by_dot_product:
            return super().item_embeddings(item_ids)
        return F.normalize(self._vectors(self._everything() if item_ids is None else item_ids), dim=-1)

    def score(self, query_embeddings: Tensor, item_ids: Tensor | None = None) -> Tensor:
        if self.scores_by_dot_product:
            return super().score(query_embeddings, item_ids)
        if item_ids is None:
            logits = self._similarities(query_embeddings, self._compared()) / self.config.temperature
            logits[:, PADDING] = torch.finfo(logits.dtype).min
            return logits
        items, rows = self._items(item_ids)
        return self._similarities(query_embeddings, items.compared[rows]) / self.config.temperature

    def _similarities(self, query_embeddings: Tensor, compared: Tensor) -> Tensor:
        """`(Q, C)` of `compared (C, ..., D)`, or of `(Q, C, K, D)`."""
        if self.scores_by_dot_product:
            return query_embeddings @ compared.T
        assert self.adaptor.sharpness is not None
        return dynamic_scores(query_embeddings, compared, self.adaptor.sharpness, len(self.config.modalities))

    def catalogue_log_probs(self, query_embeddings: Tensor, item_ids: Tensor) -> Tensor:
        if self.scores_by_dot_product:
            return super().catalogue_log_probs(query_embeddings, item_ids)
        assert self.adaptor.sharpness is not None
        return dynamic_log_probs(
            query_embeddings,
            self._compared(),
            item_ids,
            self.adaptor.sharpness,
            len(self.config.modalities),
            float(self.config.temperature),
        )

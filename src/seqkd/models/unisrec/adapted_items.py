"""Items of UniSRec: feature rows seen through an adaptor, held ready for a training step or for serving."""

from __future__ import annotations

from collections.abc import Sequence as List

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import ConfigError, DataError
from ...modules.moe_adaptor import MoEAdaptor
from ...recommenders.recommender import RecommenderModel
from .configuration_unisrec import UniSRecConfig
from .item_vectors import ItemVectors, checked_vectors

CHUNK = 8192  # items adapted at a time when no gradient is wanted


class AdaptedItems(RecommenderModel):
    """The item side of `UniSRecModel`.

    An item is a row of the buffer `item_features (I+1, P)` seen through the adaptor; with `use_item_embedding` a
    learned vector is added. Give the features by `set_item_features` before anything else.
    """

    config: UniSRecConfig
    item_features: Tensor
    content_argument = "features"

    def __init__(self, config: UniSRecConfig) -> None:
        super().__init__(config)
        self.adaptor = self._new_adaptor(config)
        learned = nn.Embedding(config.num_items + 1, config.hidden_size) if config.use_item_embedding else None
        self.item_embedding = learned
        self.register_buffer("item_features", torch.zeros(config.num_items + 1, config.plm_size))
        self._served: tuple[list[tuple[int, int]], Tensor] | None = None  # the catalogue between two changes
        self._shared: ItemVectors | None = None  # the catalogue of one training step

    def _new_adaptor(self, config: UniSRecConfig) -> nn.Module:
        """What turns feature rows `(n, P)` into item vectors `(n, D)`."""
        return MoEAdaptor(
            config.plm_size,
            config.hidden_size,
            config.num_experts,
            dropout=config.adaptor_dropout_prob,
            noisy=config.noisy_gating,
            noise_epsilon=config.noise_epsilon,
        )

    # ---- vectors ----------------------------------------------------------------------------------------------

    def _adapt(self, item_ids: Tensor, features: Tensor) -> ItemVectors:
        """The vectors of distinct items `(n,)` from the rows of `features (I+1, P)`."""
        vectors = self.adaptor(features[item_ids])  # (n, D)
        if self.item_embedding is not None:
            vectors = vectors + self.item_embedding(item_ids)
        return ItemVectors(vectors, F.normalize(vectors, dim=-1))

    def _items(self, item_ids: Tensor, features: Tensor | None = None) -> tuple[ItemVectors, Tensor]:
        """Item vectors, and the row of each id among them; an item that occurs often is adapted once.

        `features` stands in for `item_features`, e.g. texts with words left out.
        """
        if torch.is_grad_enabled():
            self._served = None
        if features is None and self._shared is not None:
            return self._shared, item_ids
        distinct, where = torch.unique(item_ids, return_inverse=True)
        return self._adapt(distinct, self.item_features if features is None else features), where

    def _vectors(self, item_ids: Tensor, features: Tensor | None = None) -> Tensor:
        """What the encoder reads of each id, `(*item_ids.shape, D)`."""
        items, rows = self._items(item_ids, features)
        return F.embedding(rows, items.read)

    def _share_catalogue(self) -> None:
        """Adapt all items once for a training step: its histories and its softmax read the same vectors.

        So a step draws one dropout mask and one gate noise per item. The vectors are dropped as soon as their gradient
        is known; a step without a backward pass keeps them until the next one.
        """
        self._shared = None
        if self.training and torch.is_grad_enabled() and self.config.loss_type == "softmax":
            shared, _ = self._items(self._everything())
            if shared.read.requires_grad:
                shared.read.register_hook(self._forget_shared)
                self._shared = shared

    def _forget_shared(self, gradient: Tensor) -> None:
        self._shared = None

    def _everything(self) -> Tensor:
        return torch.arange(self.config.num_items + 1, device=self.item_features.device)

    def _compared(self) -> Tensor:
        """What the whole catalogue is compared by, `(I+1, D)` (`ItemVectors.compared`).

        Raises:
            ConfigError: the catalogue is to be served, but `set_item_features` was never called.
        """
        if self.training or torch.is_grad_enabled():
            return self._items(self._everything())[0].compared
        # An evaluation scores hundreds of batches against the same items. The version counters tell when a weight was
        # written, though not by fused optimizers; so `train`, `eval` and any pass with gradients forget the items too.
        tensors = (*self.adaptor.parameters(), *self._id_table(), self.item_features)
        versions = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        if self._served is None or self._served[0] != versions:
            if self.item_embedding is None and not self.item_features.any():
                raise ConfigError("this model has no item features yet. Call set_item_features(features) first.")
            parts = [self._items(part)[0].compared for part in self._everything().split(CHUNK)]
            self._served = (versions, torch.cat(parts))
        return self._served[1]

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """`(I+1, D)`, row 0 padding; or `(*item_ids.shape, D)`. Of unit length.

        Raises:
            ConfigError: the catalogue is to be served, but `set_item_features` was never called.
        """
        if item_ids is None:
            return self._compared()
        items, rows = self._items(item_ids)
        return F.embedding(rows, items.compared)

    @torch.no_grad()
    def content_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """The adapted content of items, of unit length, without learned vectors: as `item_embeddings` if inductive."""
        ids = self._everything() if item_ids is None else item_ids
        was_training = self.adaptor.training
        self.adaptor.eval()  # without dropout and noise
        parts = [F.normalize(self.adaptor(self.item_features[part]), dim=-1) for part in ids.flatten().split(CHUNK)]
        self.adaptor.train(was_training)
        return torch.cat(parts).unflatten(0, ids.shape)

    def _id_table(self) -> list[Tensor]:
        return [] if self.item_embedding is None else [self.item_embedding.weight]

    def train(self, mode: bool = True) -> AdaptedItems:
        self._forget()
        return super().train(mode)

    # ---- items ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def set_item_features(self, features: Tensor | np.ndarray) -> None:
        """The text vectors of items 1..I, `(I, P)`, in the order of the catalogue; a row of zeros is an empty text.

        Raises:
            DataError: another shape, or a value that is not finite.
        """
        self.item_features[1:] = self._checked(features, self.config.num_items)
        self._shared = None

    def _checked(self, features: Tensor | np.ndarray, rows: int) -> Tensor:
        return checked_vectors(features, rows, self.config.plm_size, "text").to(self.item_features)

    @torch.no_grad()
    def add_items(
        self,
        item_ids: List[str],
        embeddings: Tensor | None = None,
        *,
        features: Tensor | np.ndarray | None = None,
    ) -> None:
        """Grow the catalogue; old rows stay bit-equal. New items can be recommended at once, from their text alone.

        Args:
            features: `(n, P)` text vectors of the new items; always needed.
            embeddings: `(n, D)` learned vectors when `use_item_embedding`; zeros where not given.

        Raises:
            DataError: an id is already in the catalogue, or an array is missing or has another shape.
            ConfigError: `embeddings` for an inductive model, which has none.
        """
        if features is None:
            raise DataError("UniSRec reads items as text: add_items(item_ids, features=encode_texts(texts, ...)).")
        if embeddings is not None and self.item_embedding is None:
            raise ConfigError("this model is inductive (use_item_embedding=False): leave `embeddings` out.")
        features = self._checked(features, len(item_ids))
        if embeddings is None and self.item_embedding is not None:
            embeddings = torch.zeros(len(item_ids), self.config.hidden_size)
        super().add_items(item_ids, embeddings)
        self.item_features = torch.cat([self.item_features, features])

    def _forget(self) -> None:
        self._served = self._shared = None

    @property
    def item_tables(self) -> List[nn.Module]:
        """The learned vectors, or none when the model is inductive."""
        return [] if self.item_embedding is None else [self.item_embedding]

    def get_input_embeddings(self) -> nn.Embedding | None:  # type: ignore[override]
        """The learned item vectors; None when the model is inductive."""
        return self.item_embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:  # type: ignore[override]
        self.item_embedding = value

"""UniSRec: items as text through a mixture-of-experts adaptor, histories through the encoder of SASRec."""

from __future__ import annotations

import copy
from collections.abc import Sequence as List
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from ...catalogue import Catalogue
from ...errors import ConfigError, DataError
from ...modules.dropout import Dropout
from ...modules.moe_adaptor import MoEAdaptor
from ...modules.sequence_encoder import SequenceEncoder, causal_mask
from ...recommender import RecommenderModel, RecommenderOutput
from .configuration_unisrec import UniSRecConfig

CHUNK = 8192  # items adapted at a time when no gradient is wanted


class UniSRecModel(RecommenderModel):
    """Universal sequence representations (Hou et al., KDD 2022, arXiv:2206.05941), inductive or transductive.

    An item is its text vector, a row of the buffer `item_features (I+1, P)`, seen through the adaptor; with
    `use_item_embedding` a learned vector is added. Give the text vectors by `set_item_features` before anything else.
    """

    config: UniSRecConfig
    config_class = UniSRecConfig
    item_features: Tensor

    def __init__(self, config: UniSRecConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
        self.adaptor = MoEAdaptor(
            config.plm_size,
            width,
            config.num_experts,
            dropout=config.adaptor_dropout_prob,
            noisy=config.noisy_gating,
            noise_epsilon=config.noise_epsilon,
        )
        self.item_embedding = nn.Embedding(config.num_items + 1, width) if config.use_item_embedding else None
        self.position_embedding = nn.Embedding(config.max_position_embeddings, width)
        self.embedding_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
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
        )
        self.register_buffer("item_features", torch.zeros(config.num_items + 1, config.plm_size))
        self._served: tuple[list[tuple[int, int]], Tensor] | None = None
        self.post_init()
        self.train(self.training)  # freezes

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, MoEAdaptor):
            init.normal_(module.weight, std=self.config.initializer_range)
            for start in (module.gate, module.noise, module.shift):
                init.zeros_(start)
        else:
            super()._init_weights(module)

    def forward(
        self, item_ids: Tensor, sequence_ids: Tensor, position_ids: Tensor, query_index: Tensor
    ) -> RecommenderOutput:
        """Embed the queries of a packed batch: `query_embeddings (Q, D)` of unit length.

        Args:
            item_ids, sequence_ids, position_ids: `(B, H)`, from `self.collator()`.
            query_index: `(Q,)` into the B * H slots.
        """
        states = self._encode(self._vectors(item_ids), sequence_ids, position_ids)
        return RecommenderOutput(query_embeddings=F.normalize(states.flatten(0, 1)[query_index], dim=-1))

    def _encode(self, items: Tensor, sequence_ids: Tensor, position_ids: Tensor) -> Tensor:
        """States `(B, H, D)` of item vectors `(B, H, D)`."""
        states = self.dropout(self.embedding_norm(items + self.position_embedding(position_ids)))
        return self.encoder(states, causal_mask(sequence_ids))

    def _vectors(self, item_ids: Tensor, features: Tensor | None = None) -> Tensor:
        """Item vectors `(*item_ids.shape, D)`, not normalised; an item that occurs often is adapted once.

        `features` stands in for `item_features`, e.g. texts with words left out.
        """
        if torch.is_grad_enabled():
            self._served = None
        features = self.item_features if features is None else features
        distinct, where = torch.unique(item_ids, return_inverse=True)
        vectors = self.adaptor(features[distinct])  # (distinct, D)
        if self.item_embedding is not None:
            vectors = vectors + self.item_embedding(distinct)
        return vectors[where]

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """`(I+1, D)`, row 0 padding; or `(*item_ids.shape, D)`. Of unit length.

        Raises:
            ConfigError: the catalogue is to be served, but `set_item_features` was never called.
        """
        if item_ids is not None:
            return F.normalize(self._vectors(item_ids), dim=-1)
        everything = torch.arange(self.config.num_items + 1, device=self.item_features.device)
        if self.training or torch.is_grad_enabled():
            return F.normalize(self._vectors(everything), dim=-1)
        # An evaluation scores hundreds of batches against the same items. The version counters tell when a weight was
        # written, though not by fused optimizers; so `train`, `eval` and any pass with gradients forget the items too.
        tensors = (*self.adaptor.parameters(), *self._id_table(), self.item_features)
        versions = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        if self._served is None or self._served[0] != versions:
            if self.item_embedding is None and not self.item_features.any():
                raise ConfigError("this model has no item texts yet. Call set_item_features(encode_texts(...)) first.")
            parts = [F.normalize(self._vectors(part), dim=-1) for part in everything.split(CHUNK)]
            self._served = (versions, torch.cat(parts))
        return self._served[1]

    def _id_table(self) -> list[Tensor]:
        return [] if self.item_embedding is None else [self.item_embedding.weight]

    def train(self, mode: bool = True) -> UniSRecModel:
        self._served = None
        if self.config.freeze_encoder:  # here, as loading makes every parameter trainable again and ends in eval()
            self.position_embedding.requires_grad_(False)
            self.encoder.requires_grad_(False)
        return super().train(mode)

    # ---- items ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def set_item_features(self, features: Tensor | np.ndarray) -> None:
        """The text vectors of items 1..I, `(I, P)`, in the order of the catalogue; a row of zeros is an empty text.

        Raises:
            DataError: another shape, or a value that is not finite.
        """
        self.item_features[1:] = self._checked(features, self.config.num_items)

    def _checked(self, features: Tensor | np.ndarray, rows: int) -> Tensor:
        features = torch.as_tensor(features).to(self.item_features)
        expected = (rows, self.config.plm_size)
        if tuple(features.shape) != expected:
            raise DataError(
                f"text vectors must be {expected} (items, plm_size), got {tuple(features.shape)}. Encode one text per "
                "item of the catalogue, in its order, none for padding, with the text model this teacher was made for."
            )
        wrong = (~torch.isfinite(features).all(dim=1)).nonzero().flatten()
        if len(wrong):
            raise DataError(f"text vector {int(wrong[0])} holds NaN or infinite values. Encode that text again.")
        return features

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
        if self.item_embedding is not None:
            if embeddings is None:
                embeddings = torch.zeros(len(item_ids), self.config.hidden_size)
            super().add_items(item_ids, embeddings)
        else:
            self._extend_catalogue(item_ids)
        self.item_features = torch.cat([self.item_features, features])
        self._served = None

    def _extend_catalogue(self, item_ids: List[str]) -> None:
        catalogue = self._known_catalogue()
        known = [item for item in item_ids if item in catalogue]
        if known:
            raise DataError(f"already in the catalogue: {known[:5]}. Add each item once.")
        self.catalogue = catalogue.extend(item_ids)
        self.item_counts = torch.cat([self.item_counts, self.item_counts.new_zeros(len(item_ids))])
        self.config.num_items += len(item_ids)

    def get_input_embeddings(self) -> nn.Embedding | None:  # type: ignore[override]
        """The learned item vectors; None when the model is inductive."""
        return self.item_embedding

    def set_input_embeddings(self, value: nn.Embedding) -> None:  # type: ignore[override]
        self.item_embedding = value

    # ---- domains ----------------------------------------------------------------------------------------------

    def for_domain(
        self,
        catalogue: Catalogue,
        features: Tensor | np.ndarray,
        item_counts: Tensor | None = None,
        **changes: Any,
    ) -> UniSRecModel:
        """A model of another domain that starts from the weights shared by all: adaptor, positions, encoder.

        Args:
            catalogue: the items of the new domain.
            features: their text vectors `(I, P)`.
            item_counts: `(I+1,)`, see `set_catalogue`.
            changes: configuration fields that differ, e.g. `use_item_embedding=True, freeze_encoder=True`.
        """
        config = copy.deepcopy(self.config)
        unknown = [name for name in changes if name not in config.to_dict()]
        if unknown:
            raise ConfigError(f"UniSRecConfig has no field {unknown[0]!r}.")
        for name, value in {"num_items": len(catalogue), "loss_type": "softmax", **changes}.items():
            setattr(config, name, value)
        config.check()
        model = UniSRecModel(config)
        shared = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("item_")}
        model.load_state_dict(shared, strict=False)
        model.set_item_features(features)
        model.set_catalogue(catalogue, item_counts)
        model.to(self.device)  # type: ignore[arg-type]
        return model.train(self.training)

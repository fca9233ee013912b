"""UniSRec: items as text through a mixture-of-experts adaptor, histories through the encoder of SASRec."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from ...catalogue import Catalogue
from ...errors import ConfigError
from ...modules.dropout import Dropout
from ...modules.moe_adaptor import MoEAdaptor
from ...modules.sequence_encoder import SequenceEncoder, causal_mask
from ...recommenders.recommender import RecommenderOutput
from .adapted_items import AdaptedItems
from .configuration_unisrec import UniSRecConfig


class UniSRecModel(AdaptedItems):
    """Universal sequence representations (Hou et al., KDD 2022, arXiv:2206.05941), inductive or transductive.

    An item is its text vector seen through the adaptor, see `AdaptedItems`; a query is the last state of the encoder
    over the items before it.
    """

    config_class = UniSRecConfig

    def __init__(self, config: UniSRecConfig) -> None:
        super().__init__(config)
        width = config.hidden_size
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
        self._share_catalogue()
        states = self._encode(self._vectors(item_ids), sequence_ids, position_ids)
        return RecommenderOutput(query_embeddings=F.normalize(states.flatten(0, 1)[query_index], dim=-1))

    def _encode(self, items: Tensor, sequence_ids: Tensor, position_ids: Tensor) -> Tensor:
        """States `(B, H, D)` of item vectors `(B, H, D)`."""
        states = self.dropout(self.embedding_norm(items + self.position_embedding(position_ids)))
        return self.encoder(states, causal_mask(sequence_ids))

    def train(self, mode: bool = True) -> UniSRecModel:
        if self.config.freeze_encoder:  # here, as loading makes every parameter trainable again and ends in eval()
            self.position_embedding.requires_grad_(False)
            self.encoder.requires_grad_(False)
        super().train(mode)
        return self

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

        Raises:
            ConfigError: a field does not exist, or these weights do not fit the shape that it asks for.
        """
        config = copy.deepcopy(self.config)
        for name, value in {"num_items": len(catalogue), "loss_type": "softmax", **changes}.items():
            setattr(config, name, value)
        config.check_names()
        config.check()
        model = self._recommender_of(config)
        shared = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("item_")}
        ours = model.state_dict()
        misfit = [name for name in shared.keys() & ours.keys() if shared[name].shape != ours[name].shape]
        misfit += [name for name in shared.keys() ^ ours.keys() if name.startswith("encoder.")]  # more layers, or fewer
        if misfit:
            raise ConfigError(
                f"{min(misfit)} has another shape with {changes}, so this model's weights cannot be shared. Leave "
                "sizes and layers as they are, or build a model of that shape and train it from scratch."
            )
        model.load_state_dict(shared, strict=False)
        model.set_item_features(features)
        model.set_catalogue(catalogue, item_counts)
        model.to(self.device)  # type: ignore[arg-type]
        return model.train(self.training)

    def _recommender_of(self, config: UniSRecConfig) -> UniSRecModel:
        """An untrained model that recommends; a class for pre-training has another one beside it."""
        return UniSRecModel(config)

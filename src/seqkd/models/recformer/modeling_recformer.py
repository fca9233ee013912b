"""Recformer: a history is the text of its items, read by a Longformer; an item is a history of one."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from collections.abc import Sequence as List
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel
from transformers.models.longformer.modeling_longformer import LongformerEncoder

from ...batches.history_collator import HistoryCollator
from ...catalogue import Catalogue
from ...errors import ConfigError, DataError
from ...recommenders.recommender import RecommenderModel, RecommenderOutput
from . import dense_attention
from .configuration_recformer import RecformerConfig
from .embeddings import RecformerEmbeddings
from .processing_recformer import ItemTokens
from .text_encoder import weights_from
from .token_batch import TOKENS, ItemTable, TokenBatch, assemble, chunks


class RecformerModel(RecommenderModel):
    """Text is all you need (Li et al., KDD 2023, arXiv:2305.13731).

    Items are token sequences, kept in buffers so that a checkpoint serves without a tokenizer. The catalogue is scored
    by `item_vectors (I+1, D)`: every item read alone, once, without gradient (section 2.3.2 of the paper). They are
    made when first asked for and stand still while the model trains until `encode_items` is called.
    """

    config: RecformerConfig
    config_class = RecformerConfig
    main_input_name = "histories"
    inputs: tuple[str, ...] = ("histories",)
    content_argument = "features"
    supports_gradient_checkpointing = True
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\.", r"^item_words$"]  # noqa: RUF012 - what only pre-training reads
    item_input_ids: Tensor
    item_token_types: Tensor
    item_lengths: Tensor
    item_vectors: Tensor

    def __init__(self, config: RecformerConfig) -> None:
        super().__init__(config)
        rows = config.num_items + 1
        self.embeddings = RecformerEmbeddings(config)
        self.encoder = LongformerEncoder(config.longformer_config())
        self.register_buffer("item_input_ids", torch.zeros(rows, config.item_length, dtype=torch.int32))
        self.register_buffer("item_token_types", torch.zeros(rows, config.item_length, dtype=torch.int8))
        self.register_buffer("item_lengths", torch.zeros(rows, dtype=torch.int32))
        self.register_buffer("item_vectors", torch.zeros(rows, config.hidden_size))
        self.post_init()
        self.train(self.training)  # freezes

    # ---- reading ----------------------------------------------------------------------------------------------

    def forward(self, histories: Tensor) -> RecommenderOutput:  # type: ignore[override]
        """Embed queries: `query_embeddings (Q, D)` of unit length.

        Args:
            histories: `(Q, n)` internal ids, the newest first, 0 padded; from `self.collator()`.
        """
        return RecommenderOutput(query_embeddings=self.encode_histories(histories))

    def encode_histories(self, histories: Tensor) -> Tensor:
        """`(Q, D)` of unit length, float32; sequences of similar length share a batch."""
        found = [(rows, self._pool(self._encode_tokens(batch), batch)) for rows, batch in self.batches(histories)]
        if not found:
            return self.embeddings.LayerNorm.bias.float().expand(0, -1)  # a batch without queries has a gradient too
        order = torch.cat([rows for rows, _ in found]).argsort()
        return F.normalize(torch.cat([states for _, states in found])[order].float(), dim=-1)

    def batches(self, histories: Tensor, tokens: int = TOKENS) -> Iterator[tuple[Tensor, TokenBatch]]:
        """Which histories `(b,)`, and their tokens; at most `tokens` tokens at a time."""
        config = self.config
        histories = histories[:, : config.max_position_embeddings]
        items = ItemTable(self.item_input_ids, self.item_token_types, self.item_lengths)
        lengths = (1 + items.lengths[histories].sum(dim=1)).clamp(max=config.max_token_num)
        for rows in chunks(lengths, max(config.attention_windows), tokens):
            yield (
                rows,
                assemble(
                    histories[rows],
                    items,
                    max_tokens=config.max_token_num,
                    bos_token_id=config.bos_token_id,
                    pad_token_id=config.pad_token_id or 0,
                    pad_position=config.max_item_embeddings - 1,
                ),
            )

    def _encode_tokens(self, batch: TokenBatch) -> Tensor:
        """Hidden states of the last layer, `(B, T, D)`."""
        windows = self.config.attention_windows
        half = self.config.encoder_dtype == "bfloat16"
        with torch.autocast(batch.input_ids.device.type, torch.bfloat16) if half else nullcontext():
            if batch.input_ids.shape[1] <= dense_attention.LONGEST:
                return dense_attention.encode(self.encoder, self.embeddings(batch), batch.attention_mask, windows)
            return self._encode_in_windows(batch)

    def _encode_in_windows(self, batch: TokenBatch) -> Tensor:
        """With the attention of transformers, made for long sequences."""
        config, length = self.config, batch.input_ids.shape[1]
        padding = -length % max(config.attention_windows)  # the encoder works on whole windows
        if padding:
            pad = config.pad_token_id or 0
            fill = (pad, 0, pad, False, -1)
            batch = TokenBatch(*(F.pad(a, (0, padding), value=b) for a, b in zip(batch, fill, strict=True)))
        states = self.embeddings(batch)
        mask = torch.zeros_like(batch.attention_mask, dtype=states.dtype)  # 0: sees its window
        mask = mask.masked_fill(~batch.attention_mask, torch.finfo(states.dtype).min)  # below 0: is not there
        mask[:, 0] = 1  # above 0: <s> sees all and is seen by all
        return self.encoder(states, attention_mask=mask, padding_len=padding).last_hidden_state

    def _pool(self, states: Tensor, batch: TokenBatch) -> Tensor:
        if self.config.pooler_type == "cls":
            return states[:, 0]
        weights = batch.attention_mask[..., None].to(states.dtype)
        return (states * weights).sum(dim=1) / weights.sum(dim=1)

    # ---- items ------------------------------------------------------------------------------------------------

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """`(I+1, D)`, row 0 padding; or `(*item_ids.shape, D)`. Of unit length, without gradient.

        Raises:
            ConfigError: `set_item_features` was never called.
        """
        if not self.item_vectors[-1].any():  # a vector that was made has length 1
            self.encode_items()
        return self.item_vectors if item_ids is None else self.item_vectors[item_ids]

    def content_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """The same: a Recformer knows nothing about an item but its text."""
        return self.item_embeddings(item_ids)

    @torch.no_grad()
    def encode_items(self) -> None:
        """Read every item again with the weights of now.

        Raises:
            ConfigError: `set_item_features` was never called.
        """
        if not self.item_lengths.any():
            raise ConfigError(
                "this model has no item texts yet. Call set_item_features(RecformerProcessor(...).encode_items(rows))."
            )
        ids = torch.arange(1, self.config.num_items + 1, device=self.item_vectors.device)
        self.item_vectors[1:] = self._encode_alone(ids)

    def _encode_alone(self, ids: Tensor) -> Tensor:
        was_training = self.training
        self.eval()
        try:
            return self._text_of(ids).to(self.item_vectors)
        finally:
            self.train(was_training)

    def _text_of(self, ids: Tensor) -> Tensor:
        return self.encode_histories(ids[:, None])  # an item is a history of one

    @torch.no_grad()
    def set_item_features(self, features: ItemTokens) -> None:
        """The tokens of items 1..I in the order of the catalogue; item vectors are made anew when next asked for.

        Raises:
            DataError: not one row per item, or tokens that this model does not know.
        """
        buffers = self._rows(features, self.config.num_items)
        for name, rows in buffers.items():
            getattr(self, name)[1:] = rows
        self.item_vectors.zero_()

    def _rows(self, features: ItemTokens, count: int) -> dict[str, Tensor]:
        """The rows of the item buffers that hold these items."""
        config, width = self.config, self.config.item_length
        if len(features.lengths) != count:
            raise DataError(
                f"there are {count} items, but tokens of {len(features.lengths)}. Encode one row per item of the "
                "catalogue, in its order, none for padding."
            )
        ids, types, lengths = (torch.as_tensor(part) for part in features[:3])
        longest = int(lengths.max()) if count else 0
        if longest > width:
            raise DataError(
                f"item {int(lengths.argmax()) + 1} has {longest} tokens, but this model keeps {width} of an item. Use "
                f"RecformerProcessor(..., max_item_length={width}) or a model with max_item_length={longest}."
            )
        if count and not 0 <= int(ids.min()) <= int(ids.max()) < config.vocab_size:
            raise DataError(
                f"token ids go up to {int(ids.max())}, but the vocabulary of this model has {config.vocab_size}. "
                "Encode the items with the tokenizer of this model."
            )
        inside = torch.arange(width) < lengths[:, None]  # (n, L)
        ids, types = (F.pad(part[:, :width], (0, width - part[:, :width].shape[1])) * inside for part in (ids, types))
        rows = {"item_input_ids": ids, "item_token_types": types, "item_lengths": lengths}
        return {name: value.to(getattr(self, name)) for name, value in rows.items()}

    @torch.no_grad()
    def add_items(
        self, item_ids: List[str], embeddings: Tensor | None = None, *, features: ItemTokens | None = None
    ) -> None:
        """Grow the catalogue; old rows stay bit-equal. New items can be recommended at once, from their text.

        Args:
            features: tokens of the new items; always needed.

        Raises:
            DataError: an id is already in the catalogue, or `features` is missing or has another number of rows.
            ConfigError: `embeddings` are given, but a Recformer learns none.
        """
        if embeddings is not None:
            raise ConfigError("Recformer reads items as text and learns no vector per item: leave `embeddings` out.")
        if features is None:
            raise DataError("Recformer reads items as text: add_items(ids, features=processor.encode_items(rows)).")
        rows = self._rows(features, len(item_ids))
        self.item_embeddings()  # old vectors are made before there are new items
        old = self.item_vectors
        self._extend_catalogue(item_ids)
        for name, new in rows.items():
            setattr(self, name, torch.cat([getattr(self, name), new]))
        ids = torch.arange(len(old), len(old) + len(item_ids), device=old.device)
        self.item_vectors = torch.cat([old, self._encode_alone(ids)])

    @property
    def item_tables(self) -> List[nn.Module]:
        """None: an item is its text."""
        return []

    # ---- the rest of a recommender ----------------------------------------------------------------------------

    def collator(self, *, tail: bool = False, seen: bool = False, training: bool = False) -> HistoryCollator:
        """One history per query; in training one query per row, drawn anew each time (section 2.3.2 of the paper)."""
        return HistoryCollator(self.config.max_position_embeddings, tail=tail, seen=seen, sample_one=training)

    def train(self, mode: bool = True) -> RecformerModel:
        # here, as loading makes every parameter trainable again and ends in eval()
        self.embeddings.word_embeddings.requires_grad_(not self.config.fix_word_embedding)
        return super().train(mode)

    def get_input_embeddings(self) -> nn.Embedding:  # type: ignore[override]
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:  # type: ignore[override]
        self.embeddings.word_embeddings = value

    def for_domain(
        self, catalogue: Catalogue, features: ItemTokens, item_counts: Tensor | None = None, **changes: Any
    ) -> RecformerModel:
        """A model of another domain that starts from this one's weights.

        Args:
            catalogue: the items of the new domain.
            features: their tokens.
            item_counts: `(I+1,)`, see `set_catalogue`.
            changes: configuration fields that differ.

        Raises:
            ConfigError: a field does not exist, or these weights do not fit the shape that it asks for.
        """
        config = copy.deepcopy(self.config)
        for name, value in {"num_items": len(catalogue), "loss_type": "softmax", **changes}.items():
            setattr(config, name, value)
        config.check_names()
        config.check()
        model = AutoModel.from_config(config)
        theirs, ours = self.state_dict(), model.state_dict()
        misfit = [name for name in theirs.keys() & ours.keys() if theirs[name].shape != ours[name].shape]
        misfit += [name for name in theirs.keys() ^ ours.keys() if name.startswith("encoder.")]  # more layers, or fewer
        misfit = [name for name in misfit if not name.startswith("item_")]
        if misfit:
            raise ConfigError(
                f"{min(misfit)} has another shape with {changes}, so this model's weights cannot be shared. Leave "
                "sizes and layers as they are, or build a model of that shape and train it from scratch."
            )
        shared = [name for name, _ in model.named_parameters() if not name.startswith("item_embedding.")]
        model.load_state_dict({name: theirs[name] for name in shared}, strict=False)
        model.set_item_features(features)
        model.set_catalogue(catalogue, item_counts)
        model.to(self.device)  # type: ignore[arg-type]
        return model.train(self.training)

    @classmethod
    def from_text_encoder(
        cls, name: str | os.PathLike, *, num_hidden_layers: int | None = None, num_items: int = 1, **config_fields: Any
    ) -> RecformerModel:
        """A Recformer that starts from a BERT, RoBERTa or Longformer: before training, it *is* that text encoder.

        For this the item positions start at zero (the authors draw them at random), all token types as the encoder's
        first, and global attention as local attention where the encoder has none; token positions beyond the
        encoder's repeat them.

        Args:
            name: a folder or a Hub id with safetensors weights; code from the Hub is never run.
            num_hidden_layers: keep the first n layers; all by default.
            config_fields: of `RecformerConfig`; the encoder's shape is read from it. `bos_token_id` is read from its
                tokenizer where not given, `max_token_positions` is what `max_token_num` needs.

        Raises:
            ConfigError: another kind of model, or it has fewer layers.
        """
        settings, weights = weights_from(name, num_hidden_layers, config_fields)
        model = cls(cls.config_class(num_items=num_items, **settings))
        model.load_state_dict(weights, strict=False)
        return model.eval()

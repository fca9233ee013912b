"""Items -> tokens, as Recformer reads them (arXiv:2305.13731, section 2.1): name, value, name, value, ..."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ...data.text import CHARACTERS_PER_TOKEN
from ...errors import CheckpointError, ConfigError, DataError
from .configuration_recformer import RecformerConfig
from .token_batch import NAME, VALUE

logger = logging.getLogger(__name__)
FILE_NAME = "processor_config.json"
FIELDS = ("title", "brand", "category", "categories")
ATTRIBUTES = {"categories": "category"}  # columns that the authors call otherwise


class ItemTokens(NamedTuple):
    """The tokens of n items, int32; row i is item i+1 of the catalogue.

    `input_ids`, `token_type_ids` (1 attribute name, 2 value) and `word_ids` (which whole word of the item a token
    belongs to, from 0) are `(n, L)`; beyond `lengths (n,)` they hold 0, 0 and -1.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    lengths: np.ndarray
    word_ids: np.ndarray

    def take(self, rows: Any) -> ItemTokens:
        """Some of the items: an index array, a mask or a slice."""
        return ItemTokens(*(part[rows] for part in self))


class RecformerProcessor:
    """Turns rows of an item table into `ItemTokens`.

    Args:
        tokenizer: of the language model; a fast one.
        max_attr_num: attributes kept of an item, the first that are there.
        max_attr_length: tokens kept of an attribute, its name included.
        max_item_length: tokens kept of an item; by default all that the two above allow.
        fields: columns in the order in which they are read; a column `categories` is the attribute `category`.

    Raises:
        ConfigError: the tokenizer is a slow one, or a number is below 1.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_attr_num: int = 3,
        max_attr_length: int = 32,
        max_item_length: int | None = None,
        fields: Sequence[str] = FIELDS,
    ) -> None:
        if not tokenizer.is_fast:
            raise ConfigError(f"{type(tokenizer).__name__} tells no words. Use a fast tokenizer (tokenizer.json).")
        self.tokenizer, self.fields = tokenizer, tuple(fields)
        self.max_attr_num, self.max_attr_length = max_attr_num, max_attr_length
        self.max_item_length = max_attr_num * max_attr_length if max_item_length is None else max_item_length
        if isinstance(fields, str) or not fields or min(max_attr_num, max_attr_length, self.max_item_length) < 1:
            raise ConfigError(
                f"fields must be a list of columns and {max_attr_num=}, {max_attr_length=}, {max_item_length=} at "
                "least 1."
            )

    def check(self, config: RecformerConfig) -> None:
        """Does this tokenizer belong to that model?

        Raises:
            ConfigError: it does not.
        """
        tokenizer = self.tokenizer
        if len(tokenizer) > config.vocab_size or tokenizer.pad_token_id != config.pad_token_id:
            raise ConfigError(
                f"the tokenizer has {len(tokenizer)} tokens and pad_token_id={tokenizer.pad_token_id}, the model "
                f"vocab_size={config.vocab_size} and pad_token_id={config.pad_token_id}. Take both from one place."
            )
        if tokenizer.cls_token_id != config.bos_token_id:
            raise ConfigError(
                f"the tokenizer begins a text with token {tokenizer.cls_token_id}, the model with bos_token_id="
                f"{config.bos_token_id}. Take both from one place."
            )

    # ---- items ------------------------------------------------------------------------------------------------

    def encode_items(
        self, rows: Iterable[Mapping[str, Any]], *, cache_dir: str | os.PathLike | None = None
    ) -> ItemTokens:
        """The tokens of each row; an item without any text has none, and is counted in a warning.

        Args:
            rows: by column; a value is text, a list of texts, or None where the attribute is missing.
            cache_dir: keeps the tokens in `tokens-<key>.safetensors`, the key being tokenizer, options and texts.

        Raises:
            DataError: a value is neither text nor a list of texts, is no valid Unicode or holds a NUL.
        """
        items = [self._attributes(row) for row in rows]
        empty = sum(not item for item in items)
        if empty:
            logger.warning("%d of %d items have no text; they are read as an empty sequence.", empty, len(items))
        if cache_dir is None:
            return self._encode(items)
        path = Path(cache_dir) / f"tokens-{self._key(items)}.safetensors"
        cached = _read_cache(path, len(items))
        if cached is not None:
            return cached
        tokens = self._encode(items)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file(tokens._asdict(), partial)
        os.replace(partial, path)
        return tokens

    def _attributes(self, row: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Names and values of the attributes that are read, none where all values are empty."""
        limit = self.max_attr_length * CHARACTERS_PER_TOKEN
        told = [field for field in self.fields if row.get(field) is not None][: self.max_attr_num]
        found = [(ATTRIBUTES.get(field, field), _text(row[field], field, row, limit)) for field in told]
        return found if any(value for _, value in found) else []

    def _encode(self, items: list[list[tuple[str, str]]]) -> ItemTokens:
        texts = [text for item in items for attribute in item for text in attribute]  # name, value, name, value, ...
        encoded = self._tokenise(texts)
        shape = (len(items), max(1, min(self.max_item_length, max(map(len, items), default=0) * self.max_attr_length)))
        ids, types, words = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
        lengths = np.zeros(len(items), np.int32)
        pairs = iter(encoded)
        for row, item in enumerate(items):
            tokens: list[tuple[int, int, int]] = []  # id, type, word
            for _ in item:
                attribute: list[tuple[int, int, int]] = []
                for kind in (NAME, VALUE):
                    own, numbers = next(pairs)
                    before = (attribute or tokens or [(0, 0, -1)])[-1][2] + 1
                    attribute += [(token, kind, before + number) for token, number in zip(own, numbers, strict=True)]
                tokens += attribute[: self.max_attr_length]
            lengths[row] = end = min(len(tokens), shape[1])
            if tokens:
                ids[row, :end], types[row, :end], words[row, :end] = zip(*tokens[:end], strict=True)
        width = max(1, int(lengths.max(initial=0)))
        ids, types, words = (np.ascontiguousarray(part[:, :width]) for part in (ids, types, words))  # files need that
        return ItemTokens(ids, types, lengths, words)

    def _tokenise(self, texts: list[str]) -> list[tuple[list[int], list[int]]]:
        """Token ids and word numbers of each text, all in one call."""
        if not texts:
            return []
        encoded = self.tokenizer(
            texts,
            add_special_tokens=False,
            truncation=True,
            max_length=self.max_attr_length,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        return [(ids, encoded.word_ids(i)) for i, ids in enumerate(encoded["input_ids"])]

    def _key(self, items: list[list[tuple[str, str]]]) -> str:
        tokenizer = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for state in ("truncation", "padding"):  # left over from the last call
            tokenizer.pop(state, None)
        told = [tokenizer, self.max_attr_num, self.max_attr_length, self.max_item_length, items]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]

    # ---- files ------------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """The tokenizer's files and `processor_config.json`."""
        self.tokenizer.save_pretrained(folder)
        names = ("max_attr_num", "max_attr_length", "max_item_length", "fields")
        with open(os.path.join(folder, FILE_NAME), "w", encoding="utf-8") as file:
            json.dump({name: getattr(self, name) for name in names}, file, indent=2)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike) -> RecformerProcessor:
        """Read what `save_pretrained` wrote.

        Raises:
            CheckpointError: `processor_config.json` is missing or damaged.
        """
        path = os.path.join(folder, FILE_NAME)
        try:
            with open(path, encoding="utf-8") as file:
                settings = json.load(file)
            return cls(AutoTokenizer.from_pretrained(folder, trust_remote_code=False), **settings)
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path} cannot be read ({error}). Copy it from the original checkpoint.") from error


def _text(value: Any, name: str, row: Mapping[str, Any], limit: int) -> str:
    """Cleaned text, cut to `limit` characters: a page scraped by accident costs nothing."""
    if isinstance(value, (list, tuple)) and all(isinstance(part, str) for part in value):
        value = " ".join(value)
    if isinstance(value, str):
        value = value.strip()[:limit]
    if not isinstance(value, str):
        fault = f"is {type(value).__name__}, not text"
    elif "\0" in value:
        fault = "holds a NUL character"
    elif any("\ud800" <= character <= "\udfff" for character in value):
        fault = "is no valid Unicode (half of an emoji)"
    else:
        return value
    raise DataError(f"column {name} of item {row.get('item_id')!r} {fault}. Write plain text or leave it empty.")


def _read_cache(path: Path, count: int) -> ItemTokens | None:
    if not path.exists():
        return None
    try:
        tokens = ItemTokens(**load_file(path))
    except (SafetensorError, TypeError, OSError) as error:
        logger.warning("%s is damaged (%s); the items are encoded again.", path, error)
        return None
    return tokens if len(tokens.lengths) == count else None

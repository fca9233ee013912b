"""Item text to vectors, with any text model of the Hub (UniSRec, arXiv:2206.05941: BERT, [CLS] of the last layer)."""

from __future__ import annotations

import html
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import AutoModel, AutoTokenizer

from ..errors import ConfigError, DataError
from ..files.model_folder import config_of
from .encoding_cache import cached

logger = logging.getLogger(__name__)
TEXT_FIELDS = ("title", "categories", "brand")
LONGEST_FIELD = 2000  # characters; a longer field is a page that was scraped by accident and becomes empty
CHARACTERS_PER_TOKEN = 20  # texts are cut to this many per token before tokenising: a 1M-token text costs nothing
POOLINGS = ("cls", "mean")


def item_text(row: Mapping[str, Any], fields: Sequence[str] = TEXT_FIELDS) -> str:
    """The text of an item: its cleaned fields, joined by a blank.

    A field loses html entities, line breaks and double quotes and ends in exactly one dot; a list is joined by
    blanks; one of 2000 characters or more becomes empty.

    Raises:
        DataError: a field is neither text nor a list of texts, or holds a NUL.
    """
    return " ".join(text for text in (_clean(row.get(name), name, row) for name in fields) if text)


def _clean(value: Any, name: str, row: Mapping[str, Any]) -> str:
    if isinstance(value, (list, tuple)) and all(isinstance(part, str) for part in value):
        value = " ".join(value)
    if value is None:
        return ""
    if not isinstance(value, str) or "\0" in value:
        fault = "holds a NUL character" if isinstance(value, str) else f"is {type(value).__name__}, not text"
        raise DataError(f"column {name} of item {row.get('item_id')!r} {fault}. Write plain text or leave it empty.")
    text = re.sub(r'["\r\n]', "", html.unescape(value)).strip()
    text = f"{text.rstrip('.')}." if text.strip(".") else ""
    return text if len(text) < LONGEST_FIELD else ""


def encode_texts(
    texts: Sequence[str],
    model_name: str | os.PathLike = "bert-base-uncased",
    *,
    pooling: str = "cls",
    max_length: int = 512,
    batch_size: int = 64,
    word_drop: float = 0.0,
    seed: int = 0,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    cache_dir: str | os.PathLike | None = None,
) -> np.ndarray:
    """One vector per text, `(n, P)` float32 as the model gives it (not normalised); an empty text gets zeros.

    Args:
        texts: see `item_text`.
        model_name: a folder or a Hub id with safetensors weights; code from the Hub is never run.
        pooling: `cls`, the first token's last hidden state, or `mean` over the tokens.
        max_length: tokens read of a text, at most what the model was trained for.
        word_drop: share of the words left out, independently (UniSRec's second feature table uses 0.15).
        seed: of `word_drop`.
        cache_dir: keeps the vectors in `text-<key>.safetensors`, the key being model, texts and options.

    Raises:
        DataError: a text is not a string, no valid Unicode or holds a NUL.
        ConfigError: a setting is out of range.
        CheckpointError: there is no such model.
    """
    if pooling not in POOLINGS:
        raise ConfigError(f"pooling must be one of {POOLINGS}, got {pooling!r}.")
    if not 0 <= word_drop < 1 or max_length < 1 or batch_size < 1:
        raise ConfigError(f"{word_drop=} must be in [0, 1), {max_length=} and {batch_size=} at least 1.")
    _check(texts)
    options = {"pooling": pooling, "max_length": max_length, "word_drop": word_drop, "seed": seed if word_drop else 0}
    contents = (text.encode() for text in texts)

    def encode() -> np.ndarray:
        cut = [text[: max_length * CHARACTERS_PER_TOKEN] for text in texts]
        cut = _drop_words(cut, word_drop, seed)
        return _encode(cut, str(model_name), revision, pooling, max_length, batch_size, device)

    return cached(cache_dir, "text", (model_name, revision), options, contents, encode)


def _check(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise DataError("texts must be a list of strings, got one string. Write encode_texts([text]).")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"text {row} is {type(text).__name__}, not a string: {str(text)[:40]!r}. Use item_text.")
        if "\0" in text:
            raise DataError(f"text {row} holds a NUL character: {text[:40]!r}. Remove it.")
        try:
            text.encode()
        except UnicodeEncodeError as error:  # half of an emoji, cut by a program that counts in UTF-16
            raise DataError(
                f"text {row} is no valid Unicode ({error}). Mend it: text.encode(errors='ignore').decode()."
            ) from error


def _drop_words(texts: list[str], share: float, seed: int) -> list[str]:
    if not share:
        return texts
    generator = np.random.default_rng(seed)
    words = [text.split() for text in texts]
    return [" ".join(np.array(w, dtype=object)[generator.random(len(w)) >= share]) for w in words]


@torch.inference_mode()
def _encode(
    texts: list[str],
    model_name: str,
    revision: str | None,
    pooling: str,
    max_length: int,
    batch_size: int,
    device: str | torch.device,
) -> np.ndarray:
    config_of(model_name, revision)  # says kindly where there is no model
    tokenizer = AutoTokenizer.from_pretrained(model_name, revision=revision, trust_remote_code=False)
    model = AutoModel.from_pretrained(model_name, revision=revision, trust_remote_code=False, use_safetensors=True)
    model = model.to(device).eval()
    limit = min(max_length, tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", max_length))
    vectors = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    order = sorted((row for row, text in enumerate(texts) if text.strip()), key=lambda row: -len(texts[row]))
    if len(order) < len(texts):
        logger.warning("%d of %d texts are empty; their vectors are zero.", len(texts) - len(order), len(texts))
    for at in tqdm(range(0, len(order), batch_size), desc=f"encoding text with {Path(model_name).name}", disable=None):
        rows = order[at : at + batch_size]  # of similar length: little padding
        part = [texts[row] for row in rows]
        batch = tokenizer(part, padding=True, truncation=True, max_length=limit, return_tensors="pt").to(device)
        hidden = model(**batch).last_hidden_state  # (B, tokens, P)
        vectors[rows] = _pool(hidden, batch["attention_mask"], pooling).float().cpu().numpy()
    return vectors


def _pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask[..., None].to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)

"""Vectors of a frozen encoder, kept on disk under the sha256 of everything they depend on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..files.model_folder import config_of

logger = logging.getLogger(__name__)
MODEL_FILES = (".safetensors", ".json", ".txt", ".model")  # weights, settings of all parts, vocabularies


def cached(
    folder: str | os.PathLike | None,
    kind: str,
    model: tuple[str | os.PathLike, str | None],
    options: dict[str, Any],
    contents: Iterable[bytes],
    encode: Callable[[], np.ndarray],
) -> np.ndarray:
    """The vectors in `folder/<kind>-<key>.safetensors`, or else those of `encode()`, which are then kept there.

    Args:
        folder: without one, nothing is looked up or kept.
        model: name (a folder or a Hub id) and revision.
        options, contents: what else the vectors depend on; `contents` gives one item of bytes per vector and is not
            read without a folder.
    """
    if folder is None:
        return encode()
    path = Path(folder) / f"{kind}-{_key(*model, options, contents)}.safetensors"
    vectors = _read(path)
    if vectors is None:
        vectors = encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file({"vectors": np.ascontiguousarray(vectors)}, partial)
        os.replace(partial, path)
    return vectors


def sha256_of_file(path: str | os.PathLike) -> bytes:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.digest()


def _key(
    model_name: str | os.PathLike, revision: str | None, options: dict[str, Any], contents: Iterable[bytes]
) -> str:
    """A folder is known by its files, a Hub model by its commit."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    if os.path.isdir(model_name):
        for file in sorted(Path(model_name).iterdir()):
            if file.suffix in MODEL_FILES:
                digest.update(sha256_of_file(file))
    else:
        config = config_of(model_name, revision)
        digest.update(f"{model_name}@{config._commit_hash}".encode())
    for content in contents:
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()[:32]


def _read(path: Path) -> np.ndarray | None:
    if not path.exists():
        return None
    try:
        return load_file(path)["vectors"]
    except (SafetensorError, KeyError, OSError) as error:
        logger.warning("%s is damaged (%s); its vectors are made again.", path, error)
        return None

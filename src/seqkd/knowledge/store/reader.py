"""Opens a folder of knowledge: sizes and headers are checked, rows are only mapped. Nothing in it is trusted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...catalogue import FILE_NAME, Catalogue
from ...errors import CheckpointError, DataError, KnowledgeError
from .source import MANIFEST, SCHEMA_VERSION, SHARD_NAME, Source, dtype_name, file_sha256

AGAIN = "Delete knowledge.json and that file and run the same export again, or download it again."


class Contents(NamedTuple):
    """What a folder holds: for each table its shards (memory-mapped), and what its export counted."""

    source: Source
    catalogue: Catalogue
    tables: dict[str, list[Tensor]]
    counts: dict[str, int]


class _Shard(NamedTuple):
    kind: str
    file: str
    bytes: int
    sha256: str


def read(folder: str | os.PathLike, *, root: str | os.PathLike | None = None, verify: bool = False) -> Contents:
    """Open a folder.

    Args:
        root: links may lead anywhere below it (the Hub's cache links to its blobs); default the folder itself.
        verify: also compare the sha256 of every shard, which reads it all.

    Raises:
        KnowledgeError: the folder is unfinished, damaged, of a newer schema, or leads outside of itself.
    """
    home = Path(folder)
    inside = Path(root if root is not None else folder).resolve()
    manifest = _manifest(home, inside)
    try:
        source = Source(**manifest["source"])
        expected = {name: (entry["dtype"], *entry["shape"]) for name, entry in manifest["tables"].items()}
        listed = manifest["shards"].items()
        shards = [_Shard(kind, s["file"], s["bytes"], s["sha256"]) for kind, group in listed for s in group]
        counts = {name: int(count) for name, count in manifest["counts"].items()}
        stated = str(manifest["catalogue_fingerprint"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise KnowledgeError(f"{home / MANIFEST} is no manifest of knowledge ({error!r}). Export it again.") from error
    tables: dict[str, list[Tensor]] = {name: [] for name in expected}
    for shard in shards:
        names = [name for name in expected if name.startswith(f"{shard.kind}_")]
        for name, tensor in zip(names, _open(home, inside, shard, names, verify), strict=True):
            tables[name].append(tensor)
    for name, (dtype, rows, *shape) in expected.items():
        kinds = {(dtype_name(tensor), *tensor.shape[1:]) for tensor in tables[name]}
        found = sum(len(tensor) for tensor in tables[name])
        if kinds != {(dtype, *shape)} or found != rows:
            raise KnowledgeError(
                f"{home}: {MANIFEST} says that table {name} is {rows} rows of {(dtype, *shape)}, but the shards hold "
                f"{found} rows of {sorted(map(str, kinds))}. Export it again."
            )
    return Contents(source, _catalogue(home, inside, stated), tables, counts)


def _manifest(home: Path, inside: Path) -> dict[str, Any]:
    if not (home / MANIFEST).is_file():
        raise KnowledgeError(
            f"{home} has no {MANIFEST}: it holds no knowledge, or its export was interrupted. "
            "Run the same export again; finished shards are kept."
        )
    try:
        manifest = json.loads(_locate(home, inside, MANIFEST).read_text(encoding="utf-8"))
        schema = int(manifest["schema_version"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise KnowledgeError(f"{home / MANIFEST} is damaged ({error!r}). Export it again.") from error
    if schema > SCHEMA_VERSION:
        raise KnowledgeError(
            f"{home / MANIFEST} has schema {schema}, but this seqkd reads up to {SCHEMA_VERSION}. Upgrade seqkd "
            f"(this was written by {manifest.get('seqkd_version')})."
        )
    return manifest


def _catalogue(home: Path, inside: Path, stated: str) -> Catalogue:
    try:
        catalogue = Catalogue.load(_locate(home, inside, FILE_NAME))
    except (CheckpointError, DataError) as error:
        raise KnowledgeError(f"{home}: {error}") from error
    if catalogue.fingerprint != stated:
        raise KnowledgeError(
            f"{home / FILE_NAME} has the fingerprint {catalogue.fingerprint[:12]}, {MANIFEST} says {stated[:12]}. "
            "Take all files from the same export."
        )
    return catalogue


def _open(home: Path, inside: Path, shard: _Shard, names: list[str], verify: bool) -> list[Tensor]:
    """The named tables of one shard. The length of the file is compared before its header is believed."""
    if not isinstance(shard.file, str) or not SHARD_NAME.fullmatch(shard.file):
        raise KnowledgeError(
            f"{home / MANIFEST} names the shard {shard.file!r}, but a shard lies in the same folder and is called "
            "query-00000.safetensors or item-00000.safetensors. Do not use this folder."
        )
    path = _locate(home, inside, shard.file)
    size = path.stat().st_size
    if size != shard.bytes:
        raise KnowledgeError(
            f"shard {shard.file} in {home} has {size} bytes, {MANIFEST} says {shard.bytes}: it is truncated. {AGAIN}"
        )
    if verify and (digest := file_sha256(path)) != shard.sha256:
        raise KnowledgeError(
            f"shard {shard.file} in {home} has sha256 {digest}, {MANIFEST} says {shard.sha256}. {AGAIN}"
        )
    try:
        with safe_open(path, "pt") as file:
            return [file.get_tensor(name) for name in names]
    except SafetensorError as error:
        raise KnowledgeError(f"shard {shard.file} in {home} cannot be read: {error}. {AGAIN}") from error


def _locate(home: Path, inside: Path, name: str) -> Path:
    path = (home / name).resolve()
    if not path.is_relative_to(inside):
        raise KnowledgeError(f"{home / name} is a link that leads out of its folder. Put the file itself there.")
    if not path.is_file():
        raise KnowledgeError(f"{name} is missing in {home}. {AGAIN}")
    return path

"""Writes a folder of knowledge piece by piece, so that a killed run continues where it stopped."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...catalogue import Catalogue
from .card import card
from .source import CARD, MANIFEST, SCHEMA_VERSION, SHARD_NAME, Piece, Source, dtype_name, file_sha256

logger = logging.getLogger(__name__)
NOTE = "seqkd"
Make = Callable[[Piece], tuple[dict[str, Tensor], dict[str, int]]]


def write(
    folder: str | os.PathLike,
    source: Source,
    catalogue: Catalogue,
    pieces: Sequence[Piece],
    make: Make,
    *,
    resume: bool,
) -> None:
    """Write what `make(piece)` gives, tables and counts, for every piece; with `resume` only for those not yet there.

    A shard appears whole or not at all and carries the fingerprint of its source; the manifest comes last.
    """
    root, fingerprint = Path(folder), source.fingerprint(catalogue)
    root.mkdir(parents=True, exist_ok=True)
    (root / MANIFEST).unlink(missing_ok=True)  # from here to the last line this folder is not knowledge
    for piece in pieces:
        mark = {"fingerprint": fingerprint, "rows": f"{piece.start}:{piece.stop}"}
        if resume and _is_finished(root / piece.file, mark):
            logger.info("%s is finished and kept.", root / piece.file)
        else:
            tables, counts = make(piece)
            note = json.dumps(
                {**mark, "counts": counts}
            )  # one entry: safetensors shuffles several, and sha256 with them
            save_file(tables, root / f"{piece.file}.part", metadata={NOTE: note})
            os.replace(root / f"{piece.file}.part", root / piece.file)
    for path in root.iterdir():
        if SHARD_NAME.fullmatch(path.name) and path.name not in {piece.file for piece in pieces}:
            path.unlink()  # of an earlier, longer export
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "seqkd_version": _version(),
        "source": asdict(source),
        "num_items": len(catalogue),
        "catalogue_fingerprint": catalogue.fingerprint,
        **_describe(root, pieces),
    }
    catalogue.save(root)
    (root / CARD).write_text(card(manifest["source"], manifest["tables"], len(catalogue)), encoding="utf-8")
    (root / f"{MANIFEST}.part").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    os.replace(root / f"{MANIFEST}.part", root / MANIFEST)


def _describe(root: Path, pieces: Sequence[Piece]) -> dict[str, Any]:
    """`tables`, `shards` and the summed `counts`, from the finished files."""
    tables: dict[str, dict[str, Any]] = {}
    shards: dict[str, list[dict[str, Any]]] = {}
    counts: Counter[str] = Counter()
    for piece in pieces:
        path = root / piece.file
        with safe_open(path, "pt") as shard:
            for name in sorted(shard.keys()):
                tensor = shard.get_tensor(name)
                table = tables.setdefault(name, {"dtype": dtype_name(tensor), "shape": [0, *tensor.shape[1:]]})
                table["shape"][0] += len(tensor)
            counts.update(json.loads(shard.metadata()[NOTE])["counts"])
        entry = {"file": piece.file, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
        shards.setdefault(piece.kind, []).append(entry)
    return {"tables": tables, "shards": shards, "counts": dict(counts)}


def _is_finished(path: Path, mark: dict[str, str]) -> bool:
    try:
        with safe_open(path, "pt") as shard:  # opening compares the length of the file with its header
            note = json.loads((shard.metadata() or {}).get(NOTE, "{}"))
    except (SafetensorError, OSError, json.JSONDecodeError):
        return False
    return {**note, **mark} == note


def _version() -> str:
    try:
        return version("seqkd")
    except PackageNotFoundError:  # run from a source tree
        return "source"

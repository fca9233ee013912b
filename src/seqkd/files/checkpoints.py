"""Training checkpoints that are complete or do not count: a manifest, written last, lists every file with its hash."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..errors import CheckpointError

logger = logging.getLogger(__name__)
MANIFEST = "seqkd_manifest.json"


def write_manifest(folder: str | os.PathLike) -> None:
    """Seal a checkpoint: from here on it counts as complete."""
    folder = Path(folder)
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    partial = folder / (MANIFEST + ".partial")
    with open(partial, "w", encoding="utf-8") as file:
        json.dump({"schema": 1, "files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, folder / MANIFEST)


def problem_with(folder: str | os.PathLike) -> str | None:
    """Why a checkpoint cannot be trusted, or None when every file is there and unchanged."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except FileNotFoundError:
        return f"it has no {MANIFEST}, so saving it was interrupted"
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        return f"{MANIFEST} is damaged ({error})"
    for name, (size, digest) in files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts or "\\" in name:
            return f"{MANIFEST} names a file outside the checkpoint: {name!r}"
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if _sha256(path) != digest:
            return f"{name} was changed after it was saved"
    return None


def checkpoints(output_dir: str | os.PathLike) -> list[Path]:
    """All `checkpoint-N` folders, newest last."""
    folders = [path for path in Path(output_dir).glob("checkpoint-*") if path.name.split("-")[1].isdigit()]
    return sorted(folders, key=lambda path: int(path.name.split("-")[1]))


def last_complete(output_dir: str | os.PathLike) -> Path:
    """The newest checkpoint that verifies; newer ones that do not are skipped with a warning, never deleted.

    Raises:
        CheckpointError: there is none.
    """
    for folder in reversed(checkpoints(output_dir)):
        problem = problem_with(folder)
        if problem is None:
            return folder
        logger.warning("skipping checkpoint %s: %s", folder, problem)
    raise CheckpointError(f"no complete checkpoint in {output_dir}. Start without resume_from_checkpoint.")


def rotate(output_dir: str | os.PathLike, limit: int | None, keep: Sequence[str | None]) -> None:
    """Delete the oldest checkpoints beyond `limit`, but none of `keep` (the one just written, the best one)."""
    if not limit or limit < 0:
        return
    kept = {Path(folder).resolve() for folder in keep if folder}
    folders = checkpoints(output_dir)
    spare = [folder for folder in folders if folder.resolve() not in kept]
    for folder in spare[: max(0, len(folders) - limit)]:
        shutil.rmtree(folder)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()

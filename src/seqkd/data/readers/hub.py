"""Data sets on the Hub, downloaded as files (never as scripts) into the usual cache."""

from __future__ import annotations

import re
from pathlib import Path

import datasets
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from ...errors import DataError
from ..columns import RawMarket

PREFIX = "hf://datasets/"
NAME = re.compile(r"^(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<inside>.+))?$")
# Everything that a reader of ours opens; scripts and pickles are not even fetched.
PATTERNS = [
    "*.parquet",
    "*.csv",
    "*.tsv",
    "*.jsonl",
    "*.json",
    "*.gz",
    "*.inter",
    "*.item",
    "*.text",
    "*.item2index",
    "*.user2index",
]
PATTERNS += ["*_features.npy", "*_features.safetensors", "*.feat1CLS", "*.feat3CLS", "*.dat", "u.data", "u.item"]
OURS = re.compile(r"^(interactions\.|.*\.inter|smap\.json|ratings\.|u\.data|meta_)")


def is_remote(source: str) -> bool:
    """`hf://datasets/owner/name[@revision][/folder]`, or `owner/name` (not a path with a dot or slash in front)."""
    return source.startswith(PREFIX) or (re.match(r"^[\w-][\w.-]*/[\w.-]+$", source) is not None)


def download(source: str) -> Path | None:
    """The files of a Hub data set as a folder; nothing where none of them is of a format of ours.

    Raises:
        DataError: there is no such data set, or it cannot be reached.
    """
    repo, revision, inside = _parts(source)
    try:
        patterns = [inside, *(f"{inside}/{pattern}" for pattern in PATTERNS)] if inside else PATTERNS
        folder = Path(snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=patterns)) / inside
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise DataError(
            f"{source} is neither here nor a data set that the Hub gives out ({type(error).__name__}). "
            "Check name, login and network."
        ) from error
    if folder.is_file():
        return folder
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    return folder if any(OURS.search(name) for name in names) else None


def load(source: str) -> RawMarket:
    """Any other data set, as `datasets` reads it: all its splits are one log.

    Raises:
        DataError: `datasets` cannot load it, or would need a script.
    """
    repo, revision, inside = _parts(source)
    try:
        loaded = datasets.load_dataset(repo, revision=revision, data_dir=inside or None)
    except (ValueError, RuntimeError, OSError) as error:
        raise DataError(f"{source} has no files in a known format, and datasets cannot load it ({error}).") from error
    log = datasets.concatenate_datasets(list(loaded.values()))
    return RawMarket(log.with_format("arrow")[:], None, source)


def _parts(source: str) -> tuple[str, str | None, str]:
    match = NAME.match(source.removeprefix(PREFIX))
    if match is None:
        raise DataError(
            f"{source} is no data set on the Hub. Write 'owner/name' or '{PREFIX}owner/name@revision/folder'."
        )
    return match["repo"], match["revision"], match["inside"] or ""

"""What the reader and the writer agree on: names of files, where knowledge comes from, how it is cut."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from ...catalogue import FILE_NAME, Catalogue

MANIFEST = "knowledge.json"
CARD = "README.md"
SCHEMA_VERSION = 1
SHARD_ROWS = 131_072  # about 80 MB with 100 items a row: little is lost when an export is killed
SHARD_NAME = re.compile(r"(query|item)-\d{5}\.safetensors")
PATTERNS = [MANIFEST, CARD, FILE_NAME, "query-*.safetensors", "item-*.safetensors"]


@dataclass(frozen=True)
class Source:
    """Where knowledge comes from.

    Args:
        teacher: name of the teacher; `teacher_revision` is the sha256 of its weights.
        split_fingerprint: `Split.fingerprint`; `part` is the part whose query ids the rows carry.
        similarity: how the teacher compares; `temperature` is already applied to the scores.
        options: whatever else decides the numbers (list length, filters ...). JSON values only.
    """

    teacher: str
    teacher_revision: str
    split_fingerprint: str
    part: str
    similarity: str = "dot"
    temperature: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)

    def fingerprint(self, catalogue: Catalogue) -> str:
        """Equal exactly when two exports would give the same tables."""
        text = json.dumps([asdict(self), catalogue.fingerprint], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class Piece(NamedTuple):
    """Rows `start..stop-1` of all tables of one kind (`query` or `item`): one shard."""

    kind: str
    number: int
    start: int
    stop: int

    @property
    def file(self) -> str:
        return f"{self.kind}-{self.number:05d}.safetensors"


def pieces_of(kind: str, rows: int, shard_rows: int) -> list[Piece]:
    """`rows` rows in pieces of `shard_rows`."""
    starts = range(0, rows, shard_rows)
    return [Piece(kind, number, start, min(start + shard_rows, rows)) for number, start in enumerate(starts)]


def dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def file_sha256(path: str | os.PathLike) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

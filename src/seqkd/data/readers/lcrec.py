"""LC-Rec style files: `D.inter.json` with {user: [items]} and `D.item.json` with {item: {title, description, ...}}."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from ...errors import DataError
from ..columns import ITEM_ID, TEXT_COLUMNS, RawMarket
from .json_files import read_json
from .sequences import from_histories

FILES = "LC-Rec: D.inter.json and optionally D.item.json"


def matches(files: list[Path]) -> bool:
    return any(file.name.endswith(".inter.json") for file in files)


def read(files: list[Path]) -> RawMarket:
    """Histories oldest first; the position stands for time.

    Raises:
        DataError: several data sets in one folder, or a value that is no list.
    """
    logs, items = ([file for file in files if file.name.endswith(ending)] for ending in (".inter.json", ".item.json"))
    if len(logs) > 1 or len(items) > 1:
        raise DataError(f"{[file.name for file in logs + items]} are of several data sets. Keep one per folder.")
    histories = {}
    for user, sequence in read_json(logs[0]).items():
        if not isinstance(sequence, list):
            raise DataError(f"{logs[0]}: user {user!r} has {sequence!r}, but needs a list of items, oldest first.")
        histories[user] = [(str(item), "train") for item in sequence]
    texts = _texts(read_json(items[0]), items[0]) if items else None
    return RawMarket(from_histories(histories, with_split=False), texts, str(logs[0]), str(items[0]) if items else "")


def _texts(meta: dict[str, Any], file: Path) -> pa.Table:
    for item, fields in meta.items():
        if not isinstance(fields, dict):
            raise DataError(
                f"{file}: item {item!r} has {str(fields)[:40]!r}, but needs an object such as {{'title': '...'}}."
            )
    columns = {
        name: pa.array([flat(fields.get(name)) for fields in meta.values()], pa.string()) for name in TEXT_COLUMNS
    }
    return pa.table({ITEM_ID: pa.array(list(meta), pa.string()), **columns})


def flat(value: Any) -> str:
    """Text of a string, or of (nested) lists of strings joined by ", "."""
    if isinstance(value, list):
        return ", ".join(text for text in map(flat, value) if text)
    return "" if value is None else str(value)

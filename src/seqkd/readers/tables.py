"""Tables: `interactions.*` and, where there are texts, `items.*` as parquet, csv, tsv or jsonl; or one such file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from ..columns import INTERACTIONS, ITEMS, RawMarket
from ..errors import DataError
from .files import read_csv, read_parquet, suffix
from .json_files import read_jsonl

FILES = "tables: interactions.{parquet,csv,tsv,jsonl} and items.{...}, or one file of interactions"
READERS = {
    **{".parquet": read_parquet, ".csv": read_csv, ".tsv": read_csv},
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), read_jsonl),  # one object per line under each name
}


def _stem(file: Path) -> str:
    return file.name.split(".")[0].lower()


def _named(files: list[Path], name: str) -> list[Path]:
    return [file for file in files if _stem(file) == name and suffix(file) in READERS]


def matches(files: list[Path]) -> bool:
    return bool(_named(files, INTERACTIONS)) or (
        len(files) == 1 and suffix(files[0]) in READERS and _stem(files[0]) != ITEMS
    )


def read_table(file: Path) -> pa.Table:
    return READERS[suffix(file)](file)


def read(files: list[Path]) -> RawMarket:
    """Read `interactions.*` and, if it is there, `items.*`.

    Raises:
        DataError: two files of the same name, or a broken one.
    """
    logs, items = _named(files, INTERACTIONS) or files, _named(files, ITEMS)
    for several in (logs, items):
        if len(several) > 1:
            raise DataError(f"{[str(file) for file in several]} hold the same table in several formats. Keep one.")
    return RawMarket(
        read_table(logs[0]), read_table(items[0]) if items else None, str(logs[0]), str(items[0]) if items else ""
    )

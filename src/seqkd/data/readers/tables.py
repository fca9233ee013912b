"""Tables: `interactions.*` and, where there are texts, `items.*` as parquet, csv, tsv or jsonl; or one such file.

Beside `items.*`, `text_features.npy` or `image_features.safetensors` hold a vector for each of its rows, in its order.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from ...errors import DataError
from ..columns import FEATURE_COLUMNS, INTERACTIONS, ITEMS, RawMarket
from ..features import as_column, read_features
from .files import read_csv, read_parquet, suffix
from .json_files import read_jsonl

FILES = (
    "tables: interactions.{parquet,csv,tsv,jsonl} and items.{...}, or one file of interactions; beside items.* also "
    "{text,image}_features.{npy,safetensors}"
)
MATRICES = (".npy", ".safetensors")
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
    """Read `interactions.*` and, if it is there, `items.*` with the matrices beside it.

    Raises:
        DataError: two files of the same name, a broken one, or a matrix without its item table.
    """
    logs, items = _named(files, INTERACTIONS) or files, _named(files, ITEMS)
    matrices = [
        [file for file in files if _stem(file) == name and suffix(file) in MATRICES] for name in FEATURE_COLUMNS
    ]
    for several in (logs, items, *matrices):
        if len(several) > 1:
            raise DataError(f"{[str(file) for file in several]} hold the same table in several formats. Keep one.")
    table = read_table(items[0]) if items else None
    for name, file in ((name, file) for name, found in zip(FEATURE_COLUMNS, matrices, strict=True) for file in found):
        if table is None or name in table.column_names:
            fault = f"{items[0]} has a column {name!r} too" if items else "there is no item table items.* that it is of"
            raise DataError(f"{file} holds a vector for each row of the item table, but {fault}. Keep one.")
        table = table.append_column(name, as_column(read_features(file, table.num_rows)))
    return RawMarket(read_table(logs[0]), table, str(logs[0]), str(items[0]) if items else "")

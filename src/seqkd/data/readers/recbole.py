"""RecBole atomic files: `*.inter` and `*.item`, rows of interactions or of item lists, whole or in parts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ...errors import DataError
from ..columns import CATEGORIES, SPLIT, TIMESTAMP, TITLE, RawMarket
from .sequences import LIST, atomic, from_histories, from_prefixes, in_order_of_parts

FILES = "RecBole: D.inter (or D.train.inter, D.valid.inter, D.test.inter) and optionally D.item"
ALIASES = {
    "movie_title": TITLE,
    "name": TITLE,
    "text": TITLE,
    "class": CATEGORIES,
    "genre": CATEGORIES,
    "category": CATEGORIES,
}


def matches(files: list[Path]) -> bool:
    return any(file.suffix == ".inter" for file in files)


def read(files: list[Path]) -> RawMarket:
    """Parts become the column `split`; a time like `881250949.0` (declared float, written exactly) becomes whole.

    Raises:
        DataError: several data sets in one folder.
    """
    logs, items = (
        [file for file in files if file.suffix == ".inter"],
        [file for file in files if file.suffix == ".item"],
    )
    parts = in_order_of_parts(logs)
    if len(logs) != (len(parts) or 1) or len(items) > 1:
        raise DataError(f"{[file.name for file in logs + items]} are of several data sets. Keep one per folder.")
    tables = [atomic(file) for file in logs] if not parts else [atomic(file) for file, _ in parts]
    if LIST in tables[0].column_names:
        interactions = from_histories(from_prefixes(parts or [(logs[0], "train")]), with_split=bool(parts))
    else:
        if parts:
            tables = [
                table.append_column(SPLIT, pa.chunked_array([pa.repeat(part, len(table))]))
                for table, (_, part) in zip(tables, parts, strict=True)
            ]
        interactions = pa.concat_tables(tables, promote_options="default")
    return RawMarket(
        _whole_times(interactions), _items(items[0]) if items else None, str(logs[0]), str(items[0]) if items else ""
    )


def _whole_times(table: pa.Table) -> pa.Table:
    if TIMESTAMP not in table.column_names or not pa.types.is_string(table[TIMESTAMP].type):
        return table
    whole = pc.replace_substring_regex(table[TIMESTAMP], r"\.0*$", "")
    return table.set_column(table.column_names.index(TIMESTAMP), TIMESTAMP, whole)


def _items(file: Path) -> pa.Table:
    table = atomic(file)
    names = table.column_names
    for position, name in enumerate(names):
        ours = ALIASES.get(name, name)
        if ours not in names:  # the first of several candidates
            names[position] = ours
    return table.rename_columns(names)

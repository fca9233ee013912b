"""JSON files into Arrow tables or objects; a broken line is shown with its number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...errors import DataError
from .files import UNREADABLE, not_empty, open_text

LINES_PER_CHUNK = 100_000
Row = dict[str, Any]


def read_jsonl(file: Path, pick: Callable[[Row], Row] | None = None) -> pa.Table:
    """One JSON object per line; `pick` keeps and renames what is needed of each, so that large files stay small."""
    not_empty(file)
    chunks, rows = [], []
    for row in json_lines(file):
        rows.append(pick(row) if pick else row)
        if len(rows) == LINES_PER_CHUNK:
            chunks.append(table_from_rows(rows, file))
            rows = []
    chunks.append(table_from_rows(rows, file))
    if len(chunks) > 1 and not rows:
        chunks.pop()
    try:
        return pa.concat_tables(_same_ids(chunks), promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(
            f"{file}: a column changes its type on the way ({error}). Write one type per column."
        ) from error


def _same_ids(chunks: list[pa.Table]) -> list[pa.Table]:
    """Integers become strings where another chunk has strings in that column."""
    for name in {name for chunk in chunks for name in chunk.column_names}:
        kinds = {chunk.schema.field(name).type for chunk in chunks if name in chunk.column_names}
        if {pa.int64(), pa.string()} <= kinds:
            chunks = [
                chunk.set_column(chunk.column_names.index(name), name, chunk[name].cast(pa.string()))
                if name in chunk.column_names
                else chunk
                for chunk in chunks
            ]
    return chunks


def json_lines(file: Path) -> Iterator[Row]:
    with open_text(file) as lines:
        number = 0
        try:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DataError(f"{file}:{number} is no JSON object: {line[:60]!r}.")
                yield row
        except json.JSONDecodeError as error:
            raise DataError(
                f"{file}:{number} is no valid JSON ({error.msg}): {line[:60]!r}. Mend or delete the line."
            ) from error
        except UNREADABLE as error:
            raise DataError(
                f"{file}: cannot be read after line {number} ({error}). Copy it again, as UTF-8."
            ) from error


def json_object(line: str) -> Row:
    """The object of one line; empty where the line is none."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return row if isinstance(row, dict) else {}


def table_from_rows(rows: list[Row], file: Path) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _column([row.get(name) for row in rows], f"{file}, column {name!r}") for name in names})


def _column(values: list[Any], where: str) -> pa.Array:
    """Values of one column; where integers and strings are mixed (ids), all become strings."""
    if {type(value) for value in values} - {type(None)} == {int, str}:
        values = [None if value is None else str(value) for value in values]
    try:
        return pa.array(values)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError) as error:
        raise DataError(
            f"{where} cannot be read ({error}). Write one type per column, text as valid Unicode."
        ) from error


def read_json(file: Path) -> dict[str, Any]:
    """One JSON object."""
    not_empty(file)
    try:
        with open_text(file) as text:
            value = json.load(text)
    except (json.JSONDecodeError, *UNREADABLE) as error:
        raise DataError(f"{file} is no valid JSON, it may be cut off ({error}). Copy it again.") from error
    if not isinstance(value, dict):
        raise DataError(f"{file} must hold one JSON object, but holds a {type(value).__name__}.")
    return value

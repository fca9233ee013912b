"""Column checks: each turns one raw Arrow column into its final type or says where it is wrong and how to mend it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError
from .columns import PARTS

PART_ALIASES = {**{part: part for part in PARTS}, "validation": "valid", "val": "valid", "dev": "valid"}


def find_column(table: pa.Table, name: str, file: str, columns: Mapping[str, str | None]) -> str:
    """The name that column `name` has in this table.

    Raises:
        DataError: it is missing; the message lists what is there and the closest match.
    """
    wanted = columns.get(name) or name
    if wanted in table.column_names:
        return wanted
    lower = {column.lower().replace("_", ""): column for column in table.column_names}
    near = get_close_matches(wanted.lower().replace("_", ""), lower, n=1, cutoff=0.5)
    hint = f' Did you mean {lower[near[0]]!r}? Pass columns={{"{name}": "{lower[near[0]]}"}}.' if near else ""
    if not near:
        hint = f' Name it with columns={{"{name}": "<your column>"}}.'
    raise DataError(f"{file} has no column {wanted!r}; it has {table.column_names}.{hint}")


def refuse_repeated_columns(table: pa.Table, file: str) -> None:
    repeated = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if repeated:
        raise DataError(f"{file} has more than one column {repeated}; it has {table.column_names}. Rename or drop one.")


def first_row(mask: pa.ChunkedArray) -> int | None:
    """The first row, counted from 1 without the header, where `mask` is true."""
    if not pc.any(mask).as_py():
        return None
    return pc.index(mask, True).as_py() + 1


def ids(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Ids as strings: integers are written out, strings kept to the letter; floats, gaps and empty ids are refused."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if (row := first_row(pc.is_null(column))) is not None:
        raise DataError(f"{where}: row {row} has no id. Drop the row or fill the id in.")
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(
            f"{where} is {kind}, but an id must be a string or an integer (1.0 and 1 are different ids). Cast it "
            "before writing the file."
        )
    column = column.cast(pa.string())
    if (row := first_row(pc.equal(column, ""))) is not None:
        raise DataError(f"{where}: row {row} has an empty id. Drop the row or fill the id in.")
    return refuse_nul(column, where)


def text(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Text as strings: a gap becomes "", a list is joined by ", "."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        try:
            lists = column.cast(pa.list_(pa.string()))
        except pa.ArrowException as error:
            raise DataError(
                f"{where} is {column.type}, but text must be a string or a list of strings. Join it first."
            ) from error
        column = pa.chunked_array([pc.binary_join(chunk, ", ") for chunk in lists.chunks], pa.string())
    try:
        column = column.cast(pa.string())
    except pa.ArrowException as error:
        raise DataError(f"{where} is {column.type}, but text must be a string or a list of strings.") from error
    return refuse_nul(pc.fill_null(column, ""), where)


def refuse_nul(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    if (row := first_row(pc.match_substring(column, "\0"))) is not None:
        raise DataError(
            f"{where}: row {row} holds a NUL byte, so the file is damaged or of another encoding. Write it again "
            "as UTF-8."
        )
    return column


def ratings(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    try:
        return column.cast(pa.float32(), safe=False)
    except pa.ArrowException as error:
        raise DataError(f"{where} must hold numbers ({error}).") from error


def parts(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """A preset split: train, valid or test ("val", "validation" and "dev" mean valid)."""
    column = text(column, where)
    known = pa.array(list(PART_ALIASES))
    index = pc.index_in(column, value_set=known)
    if (row := first_row(pc.is_null(index))) is not None:
        raise DataError(f"{where}: row {row} is {column[row - 1].as_py()!r}, but a split is one of {PARTS}.")
    return pc.take(pa.array(list(PART_ALIASES.values())), index)


def features(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Feature vectors as list<float32>, all of one width and finite."""
    try:
        column = column.cast(pa.list_(pa.float32()))
    except pa.ArrowException as error:
        raise DataError(f"{where} is {column.type}, but feature vectors must be lists of floats.") from error
    widths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(widths) > 1 or None in widths:
        raise DataError(
            f"{where} has vectors of several widths ({widths[:5]}; None means missing). Every item needs one "
            "vector of the same width."
        )
    finite = np.isfinite(pc.list_flatten(column).to_numpy())
    if not finite.all():
        raise DataError(
            f"{where}: row {int(finite.argmin()) // widths[0] + 1} holds NaN or infinity. Encode the item again."
        )
    return column


def refuse_duplicates(keys: Sequence[pa.ChunkedArray], where: str) -> None:
    """One row per item; `keys` are the id and the domain columns."""
    counts = (
        pa.table(list(keys), names=["item", "domain"])
        .group_by(["item", "domain"], use_threads=False)
        .aggregate([([], "count_all")])
    )
    repeated = counts.filter(pc.greater(counts["count_all"], 1))
    if repeated.num_rows:
        raise DataError(
            f"{where}: {repeated.num_rows} item ids occur more than once, first "
            f"{repeated['item'].slice(0, 5).to_pylist()}. Keep one row per item."
        )

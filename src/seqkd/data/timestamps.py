"""The one check of times: whole numbers only, because floats reorder histories."""

from __future__ import annotations

from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError
from .checks import first_row

INTEGER_TEXT, DECIMAL_TEXT = r"^\s*[+-]?\d+\s*$", r"^\s*[+-]?(\d+\.\d*|\.\d+|\d+[eE])"


def timestamps(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Times as int64: integers keep their unit; dates and ISO 8601 strings become microseconds since 1970 (UTC).

    Raises:
        DataError: floats (float32 values are 128 s apart in 2020, which reorders histories), gaps, no dates.
    """
    if pa.types.is_null(column.type) or (row := first_row(pc.is_null(column))) is not None:
        row = 1 if pa.types.is_null(column.type) else row
        raise DataError(f"{where}: row {row} has no time (NaT or empty). Drop the row or fill the time in.")
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        raise DataError(
            f"{where} is {kind}: floats lose seconds and reorder histories. "
            'Write it as int64 from the source, for example frame["timestamp"].astype("int64").'
        )
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _times_from_text(column.cast(pa.string()), where)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return column.cast(pa.timestamp("us", kind.tz if pa.types.is_timestamp(kind) else None), safe=False).cast(
            pa.int64()
        )
    if not pa.types.is_integer(kind):
        raise DataError(f"{where} is {kind}. Write times as int64, dates or ISO 8601 strings.")
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise DataError(f"{where} does not fit into int64 ({error}).") from error


def _times_from_text(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    integer = pc.match_substring_regex(column, INTEGER_TEXT)
    if pc.all(integer).as_py():
        return pc.utf8_trim_whitespace(column).cast(pa.int64())
    if (row := first_row(pc.match_substring_regex(column, DECIMAL_TEXT))) is not None:
        raise DataError(
            f"{where}: row {row} is the decimal number {column[row - 1]}; floats lose seconds and reorder "
            "histories. Write whole numbers or ISO dates."
        )
    if (row := first_row(integer)) is not None:
        raise DataError(f"{where} mixes numbers (row {row}: {column[row - 1]}) with dates. Write one of the two.")
    for zone in (None, "UTC"):
        try:
            return column.cast(pa.timestamp("us", zone)).cast(pa.int64())
        except pa.ArrowInvalid:
            continue
    for row, value in enumerate(column.to_pylist(), start=1):
        try:
            datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            raise DataError(
                f"{where}: row {row} is {value!r}, which is no time. Write int64 or ISO 8601 such as "
                "2024-05-01T12:00:00."
            ) from None
    raise DataError(f"{where} mixes dates with and without a time zone. Write all in one way.")

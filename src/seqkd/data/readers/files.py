"""Single files into Arrow tables: every fault of a file names the file, and where it can, the line."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from ...errors import DataError

PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".dill", ".npz", ".npy"}
# What damaged bytes make the decoders of text, gzip and deeply nested JSON raise.
UNREADABLE = (UnicodeDecodeError, EOFError, OSError, RecursionError, zlib.error)


def suffix(file: Path) -> str:
    """The extension without compression: `.jsonl` for `a.jsonl.gz`."""
    return Path(file.stem).suffix.lower() if file.suffix.lower() == ".gz" else file.suffix.lower()


def refuse_unsafe(file: Path) -> None:
    """Stop before a file that would run code when read, naming the safe way."""
    if suffix(file) == ".py":
        raise DataError(
            f"{file} is a loading script; scripts are never run. Load the data yourself and write it with "
            "Dataset.to_parquet."
        )
    if suffix(file) in PICKLES:
        raise DataError(
            f"{file} may hold pickled objects, which run code when read, and has no named columns. "
            "Where you trust it, read it yourself and write the columns with Dataset.to_parquet (arrays: list columns)."
        )


def read_parquet(file: Path) -> pa.Table:
    not_empty(file)
    try:
        table = pa.parquet.read_table(file)
        table.validate(full=True)  # flipped bits can leave text that is no UTF-8
        return table
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{file} is no readable parquet file, it may be cut off ({error}). Copy it again.") from error


def read_csv(
    file: Path,
    separator: str | None = None,
    *,
    names: list[str] | None = None,
    quoted: bool = True,
    encoding: str = "utf-8",
) -> pa.Table:
    """A table of strings (so that "007" stays "007").

    `separator` may be longer than one character; without it the most frequent of tab , ; | in the header is taken.
    `names` are the columns of a file without a header; `quoted` says that quotes protect separators and line breaks.
    """
    not_empty(file)
    header = first_line(file, encoding)
    separator = separator or max("\t,;|", key=header.count)
    columns = names or [name.strip('"') for name in header.split(separator)]
    source: Path | pa.BufferReader = file
    if len(separator) > 1:
        source, separator = pa.BufferReader(file.read_bytes().replace(separator.encode(), b"\t")), "\t"
    try:
        return pa.csv.read_csv(
            source,
            read_options=pa.csv.ReadOptions(column_names=names, encoding=encoding),
            parse_options=pa.csv.ParseOptions(
                delimiter=separator, quote_char='"' if quoted else False, newlines_in_values=quoted
            ),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string())),
        )
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file} is no readable table separated by {separator!r} ({error}). Write it again as UTF-8 with one "
            "header line."
        ) from error


def first_line(file: Path, encoding: str = "utf-8") -> str:
    try:
        with open_text(file, encoding) as lines:
            line = lines.readline().rstrip("\r\n").removeprefix("\ufeff")
    except UNREADABLE as error:
        raise DataError(f"{file} cannot be read ({error}). Write it again as UTF-8.") from error
    if "\0" in line:
        raise DataError(
            f"{file}:1 holds a NUL byte, so the file is damaged or of another encoding. Write it again as UTF-8."
        )
    return line


def open_text(file: Path, encoding: str = "utf-8") -> TextIO:
    if file.suffix.lower() == ".gz":
        return gzip.open(file, "rt", encoding=encoding)
    return open(file, encoding=encoding)


def not_empty(file: Path) -> None:
    if file.stat().st_size == 0:
        raise DataError(f"{file} is empty (0 bytes). Export or copy it again.")

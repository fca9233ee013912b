"""Whole histories, or rows of growing prefixes, into one row per interaction; the position stands for time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ...errors import DataError
from ..columns import ITEM_ID, PARTS, SPLIT, TIMESTAMP, USER_ID
from .files import read_csv

LIST = "item_id_list"
Event = tuple[str, str]  # item, part


def from_histories(histories: Mapping[str, Sequence[Event]], *, with_split: bool) -> pa.Table:
    """A row per event: user, item, position as timestamp and, where asked for, the part as split."""
    lengths = [len(events) for events in histories.values()]
    columns: dict[str, pa.Array] = {
        USER_ID: pa.array(
            [user for user, length in zip(histories, lengths, strict=True) for _ in range(length)], pa.string()
        ),
        ITEM_ID: pa.array([item for events in histories.values() for item, _ in events], pa.string()),
        TIMESTAMP: pa.array([position for length in lengths for position in range(length)], pa.int64()),
    }
    if with_split:
        columns[SPLIT] = pa.array([part for events in histories.values() for _, part in events], pa.string())
    return pa.table(columns)


def atomic(file: Path) -> pa.Table:
    """A RecBole atomic file with the types (`:token`) cut from the header; lists stay strings."""
    table = read_csv(file, "\t", quoted=False)
    return table.rename_columns([name.split(":")[0].strip() for name in table.column_names])


def part_of(file: Path) -> str | None:
    """`train`, `valid` or `test` for `D.train.inter` and so on."""
    middle = file.name.split(".")[-2]
    return middle if middle in PARTS and file.name.count(".") > 1 else None


def from_prefixes(files: Sequence[tuple[Path, str]]) -> dict[str, list[Event]]:
    """Histories from files of rows `user, item_id_list, item_id`, one row per target; the parts come in order of time.

    Lists may be cut to the last items (UniSRec: 50): what a cut hides is in the shorter rows of the same user.

    Raises:
        DataError: a row whose list does not continue the user's history so far.
    """
    histories: dict[str, list[Event]] = {}
    for file, part in files:
        table = atomic(file)
        missing = {USER_ID, LIST, ITEM_ID} - set(table.column_names)
        if missing:
            raise DataError(f"{file} has no column {sorted(missing)}; it has {table.column_names}.")
        lists = [text.split() for text in table[LIST].to_pylist()]
        targets = table[ITEM_ID].to_pylist()
        for user, rows in _rows_by_user(table[USER_ID]).items():
            longest_first = len(lists[rows[0]]) >= len(lists[rows[-1]])
            for row in reversed(rows) if longest_first else rows:
                known = histories.setdefault(user, [(item, "train") for item in lists[row]])
                if [item for item, _ in known[len(known) - len(lists[row]) :]] != lists[row]:
                    raise DataError(
                        f"{file}:{row + 2}: the list of user {user!r} does not continue the user's history. "
                        "Export the files again, in one go."
                    )
                known.append((targets[row], part))
    return histories


def _rows_by_user(users: pa.ChunkedArray) -> dict[str, list[int]]:
    codes = pc.dictionary_encode(users).combine_chunks()
    rows: list[list[int]] = [[] for _ in range(len(codes.dictionary))]
    for row, user in enumerate(codes.indices.to_pylist()):
        rows[user].append(row)
    return dict(zip(codes.dictionary.to_pylist(), rows, strict=True))


def renamed(
    histories: Mapping[str, Sequence[Event]], users: Mapping[str, str], items: Mapping[str, str]
) -> dict[str, list[Event]]:
    """Histories with the raw ids behind the numbers; a number without a raw id stays."""
    return {
        users.get(user, user): [(items.get(item, item), part) for item, part in events]
        for user, events in histories.items()
    }


def in_order_of_parts(files: Iterable[Path]) -> list[tuple[Path, str]]:
    """Train, valid, test files of one data set.

    Raises:
        DataError: two files of one part.
    """
    parts = [(file, part_of(file)) for file in files]
    named = sorted(((file, part) for file, part in parts if part), key=lambda pair: PARTS.index(pair[1]))
    if len({part for _, part in named}) != len(named):
        raise DataError(f"{[file.name for file, _ in named]} are of several data sets. Keep one per folder.")
    return named

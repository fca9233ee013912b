"""UniSRec's own files (also UniM2Rec, MISSRec, VQ-Rec): prefixes, index, text and feature vectors of one domain."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from ...errors import DataError
from ..columns import IMAGE_FEATURES, ITEM_ID, TEXT_FEATURES, TITLE, RawMarket
from ..features import as_column, read_features
from .files import read_csv
from .sequences import atomic, from_histories, from_prefixes, in_order_of_parts, renamed

FILES = "UniSRec: D.{train,valid,test}.inter, D.item2index, and optionally D.{user2index,text,feat1CLS,feat3CLS}"
FEATURES = {".feat1CLS": TEXT_FEATURES, ".feat3CLS": IMAGE_FEATURES}


def _only(files: list[Path], ending: str) -> Path | None:
    found = [file for file in files if file.name.endswith(ending)]
    if len(found) > 1:
        raise DataError(f"{[str(file) for file in found]}: one folder holds one data set. Move the others away.")
    return found[0] if found else None


def matches(files: list[Path]) -> bool:
    names = [file.name for file in files]
    return any(name.endswith(".item2index") for name in names) and any(name.endswith(".train.inter") for name in names)


def read(files: list[Path]) -> RawMarket:
    """Interactions with the preset split of the files; items in the order of the index (and of the features).

    Raises:
        DataError: a missing part, an index that is no 0..n-1, features whose size is not rows x width.
    """
    parts = in_order_of_parts(file for file in files if file.name.endswith(".inter"))
    if [part for _, part in parts] != ["train", "valid", "test"]:
        raise DataError(
            f"{parts[0][0].parent} holds {[file.name for file, _ in parts]}, but needs .train.inter, .valid.inter "
            "and .test.inter."
        )
    index_file, user_file, text_file = (_only(files, ending) for ending in (".item2index", ".user2index", ".text"))
    assert index_file is not None  # matches() saw it
    items = read_index(index_file)
    users = read_index(user_file) if user_file else []
    histories = renamed(from_prefixes(parts), _by_number(users), _by_number(items))
    columns: dict[str, pa.Array] = {ITEM_ID: pa.array(items, pa.string())}
    if text_file:
        table = atomic(text_file)
        if not {ITEM_ID, "text"} <= set(table.column_names):
            raise DataError(
                f"{text_file} has the columns {table.column_names}, but needs item_id:token and text:token_seq."
            )
        texts = dict(zip(table[ITEM_ID].to_pylist(), table["text"].to_pylist(), strict=True))
        columns[TITLE] = pa.array([texts.get(item, "") for item in items], pa.string())
    for ending, name in FEATURES.items():
        if (file := _only(files, ending)) is not None:
            columns[name] = as_column(read_features(file, len(items)))
    return RawMarket(from_histories(histories, with_split=True), pa.table(columns), str(parts[0][0]), str(index_file))


def _by_number(raw: list[str]) -> dict[str, str]:
    return {str(number): name for number, name in enumerate(raw)}


def read_index(file: Path) -> list[str]:
    """Raw ids in the order of their index (`raw id <tab> index`, no header)."""
    table = read_csv(file, "\t", names=["raw", "index"], quoted=False)
    index = table["index"].to_pylist()
    if sorted(index, key=lambda text: (len(text), text)) != [str(row) for row in range(len(index))]:
        raise DataError(
            f"{file}: the second column must hold every number from 0 to {len(index) - 1} once. Export the file again."
        )
    raw = table["raw"].to_pylist()
    return [item for _, item in sorted(zip(map(int, index), raw, strict=True))]

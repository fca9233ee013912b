"""Recformer's files: item texts, id maps, and the sequences of the three parts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from ...errors import DataError
from ..columns import BRAND, CATEGORIES, ITEM_ID, PARTS, TITLE, RawMarket
from .json_files import read_json
from .sequences import from_histories, renamed

FILES = "Recformer: meta_data.json, smap.json, train.json, val.json, test.json and optionally umap.json"
PART_FILES = dict(zip(PARTS, ("train.json", "val.json", "test.json"), strict=True))


def matches(files: list[Path]) -> bool:
    return {"smap.json", "train.json"} <= {file.name for file in files}


def read(files: list[Path]) -> RawMarket:
    """Items in the order of `smap.json`; the split of the files is kept.

    Raises:
        DataError: a file is missing or broken, or sequences name items that `smap.json` does not.
    """
    folder = files[0].parent
    missing = {"meta_data.json", *PART_FILES.values()} - {file.name for file in files}
    if missing:
        raise DataError(f"{folder} has Recformer's smap.json, but no {sorted(missing)}. Add them.")
    items = read_numbers(folder / "smap.json")
    users = read_numbers(folder / "umap.json") if (folder / "umap.json").exists() else {}
    histories: dict[str, list[tuple[str, str]]] = {}
    for part, name in PART_FILES.items():
        for user, sequence in read_json(folder / name).items():
            if not isinstance(sequence, list):
                raise DataError(
                    f"{folder / name}: user {user!r} has {sequence!r}, but needs a list of items, oldest first."
                )
            unknown = [item for item in sequence if str(item) not in items]
            if unknown:
                raise DataError(
                    f"{folder / name}: user {user!r} has the items {unknown[:3]}, which smap.json does not name."
                )
            histories.setdefault(user, []).extend((str(item), part) for item in sequence)
    interactions = from_histories(renamed(histories, users, items), with_split=True)
    return RawMarket(
        interactions,
        _texts(folder / "meta_data.json", list(items.values())),
        str(folder / "train.json"),
        str(folder / "meta_data.json"),
    )


def read_numbers(file: Path) -> dict[str, str]:
    """{number as text: raw id} of a file of {raw id: number}, in the order of the numbers."""
    mapping = read_json(file)
    for raw, number in mapping.items():
        if not isinstance(number, int):
            raise DataError(f"{file}: {raw!r} has {number!r}, but needs a whole number.")
    return {str(number): raw for raw, number in sorted(mapping.items(), key=lambda pair: pair[1])}


def _texts(file: Path, items: list[str]) -> pa.Table:
    meta = read_json(file)
    for item, fields in meta.items():
        if not isinstance(fields, dict):
            raise DataError(f"{file}: item {item!r} has {fields!r}, but needs an object such as {{'title': '...'}}.")
    columns = {TITLE: "title", BRAND: "brand", CATEGORIES: "category"}
    texts = {ours: [str(meta.get(item, {}).get(theirs) or "") for item in items] for ours, theirs in columns.items()}
    return pa.table(
        {
            ITEM_ID: pa.array(items, pa.string()),
            **{name: pa.array(values, pa.string()) for name, values in texts.items()},
        }
    )

"""The published stream of CCD (Lee et al., KDD 2024), with the authors' split and ids."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..catalogue import Catalogue
from ..errors import DataError
from .columns import PARTS, SPLIT
from .readers.files import read_parquet
from .stream import ITEM, PART, USER, Block
from .stream_rows import block_of

SIZES, BLOCK_0 = "catalogue.json", "block_0.parquet"


def is_ccd(folder: str | os.PathLike) -> bool:
    """Whether a folder holds a stream in this format."""
    return all((Path(folder) / name).exists() for name in (SIZES, BLOCK_0))


def read_ccd(folder: str | os.PathLike) -> list[Block]:
    """All blocks of a folder `block_0.parquet`, `block_1.parquet`, ..., `catalogue.json`.

    A file holds `user`, `item` (from 0, over the whole stream, in order of first appearance) and `split` (train, valid
    or test, drawn at random within user and block); the catalogue says `n_users_cum` and `n_items_cum` of each block.
    External ids are the authors' numbers. Repeated interactions stay as they are, so a few targets are trained on or
    masked (`repeated_interactions` in the report) and no recall is 1.

    Raises:
        DataError: a file is missing or damaged, or names ids beyond the sizes.
    """
    path = Path(folder)
    try:
        sizes = [
            (entry["n_users_cum"], entry["n_items_cum"]) for entry in json.loads((path / SIZES).read_text("utf-8"))
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} holds no stream of CCD: {SIZES} must list n_users_cum and n_items_cum of each block ({error!r})."
        ) from error
    names = [[str(number) for number in range(count)] for count in sizes[-1]] if sizes else []
    stream: list[Block] = []
    for number, counts in enumerate(sizes):
        log = _log(path / f"block_{number}.parquet", counts)
        everyone, catalogue = (Catalogue(ids[:count]) for ids, count in zip(names, counts, strict=True))
        repeated = len(log[USER]) - len(np.unique(log[USER] * (counts[1] + 1) + log[ITEM]))
        block = block_of(
            stream, log, catalogue, everyone,
            split="random", queries="users", domain=path.resolve().name, max_length=1,
            report={"repeated_interactions": repeated},
        )  # fmt: skip
        stream.append(block)
    return stream


def _log(file: Path, counts: tuple[int, int]) -> dict[str, np.ndarray]:
    if not file.is_file():
        raise DataError(f"{file} is missing, but {SIZES} counts it. Copy the whole folder.")
    table = read_parquet(file)
    missing = {USER, ITEM, SPLIT} - set(table.column_names)
    if missing:
        raise DataError(f"{file} has no column {sorted(missing)}; it has {table.column_names}.")
    part = pc.index_in(table[SPLIT].cast(pa.string()), value_set=pa.array(PARTS))
    log = {name: table[name].to_numpy() + 1 for name in (USER, ITEM)} | {PART: part.to_numpy()}
    for name, count in zip((USER, ITEM), counts, strict=True):
        if table.num_rows and not 1 <= log[name].min() <= log[name].max() <= count:
            raise DataError(
                f"{file} names {name}s {log[name].min() - 1}..{log[name].max() - 1}, but {SIZES} says that there are "
                f"{count}, from 0 on. Some files are of another stream."
            )
    if part.null_count:
        raise DataError(f"{file}, column {SPLIT!r}: {part.null_count} rows are none of {PARTS}.")
    return log

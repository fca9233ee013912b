"""The item catalogue: external ids on the outside, rows of the item table on the inside."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from .errors import CheckpointError, DataError

PADDING = 0
FILE_NAME = "item_ids.json"


class Catalogue:
    """A bidirectional map between external item ids (strings) and internal ids `1..I`; 0 is padding.

    Raises:
        DataError: an id occurs twice or is empty.
    """

    def __init__(self, item_ids: Iterable[str]) -> None:
        self.item_ids: tuple[str, ...] = tuple(str(item) for item in item_ids)
        self._row = {item: row for row, item in enumerate(self.item_ids, start=1)}
        if len(self._row) != len(self.item_ids):
            repeated = sorted(
                {item for item in self.item_ids if self.item_ids[self._row[item] - 1] is not item} or {"?"}
            )
            raise DataError(
                f"item ids must be unique, but these occur more than once: {repeated[:5]}. Keep one row per item."
            )
        if "" in self._row:
            raise DataError(f"item id number {self._row['']} is empty. Give every item an id.")

    def __len__(self) -> int:
        return len(self.item_ids)

    def __contains__(self, item_id: str) -> bool:
        return str(item_id) in self._row

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Catalogue) and self.item_ids == other.item_ids

    def __hash__(self) -> int:
        return hash(self.item_ids)

    def __repr__(self) -> str:
        return f"Catalogue({len(self)} items, {self.fingerprint[:12]})"

    def encode(self, item_ids: Sequence[str]) -> np.ndarray:
        """Internal ids, `(n,)` int64; an id that is not in the catalogue becomes 0."""
        return np.fromiter(
            (self._row.get(str(item), PADDING) for item in item_ids), dtype=np.int64, count=len(item_ids)
        )

    def decode(self, rows: Iterable[int]) -> list[str]:
        """External ids of internal ids `1..I`."""
        return [self.item_ids[row - 1] for row in rows]

    def extend(self, item_ids: Iterable[str]) -> Catalogue:
        """A larger catalogue: old items keep their rows, new ones follow."""
        return Catalogue((*self.item_ids, *item_ids))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the ids in order: equal exactly when two models share their item rows."""
        return hashlib.sha256("\0".join(self.item_ids).encode("utf-8", "surrogatepass")).hexdigest()

    def save(self, folder: str | os.PathLike, name: str = FILE_NAME) -> None:
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(self.item_ids, file)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Catalogue:
        """Read what `save` wrote.

        Raises:
            CheckpointError: the file is no JSON list of strings.
        """
        try:
            with open(path, encoding="utf-8") as file:
                item_ids = json.load(file)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path} is damaged ({error}). Copy it from the original checkpoint.") from error
        if not isinstance(item_ids, list) or not all(isinstance(item, str) for item in item_ids):
            raise CheckpointError(f"{path} must hold a JSON list of id strings.")
        try:
            return cls(item_ids)
        except DataError as error:
            raise CheckpointError(f"{path}: {error}") from error

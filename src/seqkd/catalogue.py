"""The catalogue of items, and that of users: external ids on the outside, rows of a table on the inside."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np

from .errors import CheckpointError, DataError

PADDING = 0
FILE_NAME = "item_ids.json"


class Catalogue:
    """A bidirectional map between external ids (strings) and internal ids `1..I`; 0 is padding.

    Users are numbered by one, too, `1..U`; 0 is the unknown user, and `item_ids` are then the ids of users.

    Raises:
        DataError: an id occurs twice or is empty.
    """

    def __init__(self, item_ids: Iterable[str]) -> None:
        self.item_ids: tuple[str, ...] = tuple(str(item) for item in item_ids)
        self._row = {item: row for row, item in enumerate(self.item_ids, start=1)}
        if len(self._row) != len(self.item_ids):
            repeated = [name for name, count in Counter(self.item_ids).items() if count > 1]
            raise DataError(f"ids must be unique, but these occur more than once: {repeated[:5]}. Keep each once.")
        if "" in self._row:
            raise DataError(f"id number {self._row['']} is empty. Write an id, or leave its row out.")

    def __len__(self) -> int:
        return len(self.item_ids)

    def __contains__(self, item_id: str) -> bool:
        return str(item_id) in self._row

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Catalogue) and self.item_ids == other.item_ids

    def __hash__(self) -> int:
        return hash(self.item_ids)

    def __repr__(self) -> str:
        return f"Catalogue({len(self)} ids, {self.fingerprint[:12]})"

    def encode(self, item_ids: Sequence[str]) -> np.ndarray:
        """Internal ids, `(n,)` int64; an id that is not in the catalogue becomes 0."""
        return np.fromiter(
            (self._row.get(str(item), PADDING) for item in item_ids), dtype=np.int64, count=len(item_ids)
        )

    def decode(self, rows: Iterable[int]) -> list[str]:
        """External ids of internal ones, which are not 0."""
        return [self.item_ids[row - 1] for row in rows]

    def extend(self, item_ids: Iterable[str]) -> Catalogue:
        """A larger catalogue: old ids keep their rows, new ones follow."""
        return Catalogue((*self.item_ids, *item_ids))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the ids in order: equal exactly when two models share their rows."""
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

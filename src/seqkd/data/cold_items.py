"""The cold protocol: items that nothing in training shows, and that a model meets when it has to recommend them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from datasets import Dataset

from ..batches.collators import SequenceDataset
from ..catalogue import Catalogue
from ..errors import ConfigError, DataError
from .columns import PARTS, USER_ID
from .split import FIRST_TARGET, ITEM_IDS, QUERY_START, Split

Row = tuple[str, np.ndarray, int]  # user, items (oldest first), first target


@dataclass(frozen=True)
class HiddenItems:
    """A split cut in two by its items; results say `protocol`.

    `warm` lacks the hidden items everywhere: catalogue, histories and targets. `cold` has the catalogue of a model
    after `add_items(item_ids, ...)`: warm items keep their rows, hidden ones follow. Its train and valid are those of
    `warm`; its test asks for every hidden target, after what is left of the user's history without hidden items.
    """

    warm: Split
    cold: Split

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The hidden items in the order of their new rows."""
        return self.cold.catalogue.item_ids[len(self.warm.catalogue) :]

    @property
    def protocol(self) -> str:
        return f"{self.cold.protocol}, hidden items, full catalogue incl. the new items, masked"


def hide_items(split: Split, share: float = 0.1, seed: int = 0) -> HiddenItems:
    """Hide a share of the items that any part asks for, each as likely, however often it was bought.

    Raises:
        ConfigError: `share` does not lie between 0 and 1, or the split asks for sets (`ratio_split`).
        DataError: so few items are hidden that no test query asks for one after a history.
    """
    if not 0 < share < 1:
        raise ConfigError(f"share is the part of the items to hide, between 0 and 1, got {share}.")
    if split.protocol.startswith("ratio"):
        raise ConfigError(
            f"a split by {split.protocol} asks for sets, which have no order, but hidden items are asked for one by "
            "one, each after the items before it. Split with leave_one_out or temporal."
        )
    num_items = len(split.catalogue)
    parts = {name: SequenceDataset(split.part(name), num_items) for name in PARTS}
    users = {name: split.part(name)[USER_ID] for name in PARTS}
    asked = np.unique(np.concatenate([items[first:] for part in parts.values() for items, first, *_ in part]))
    hidden = np.sort(np.random.default_rng(seed).choice(asked, round(share * len(asked)), replace=False))
    order = np.concatenate([np.setdiff1d(np.arange(1, num_items + 1), hidden), hidden])  # old ids in their new order
    row, num_warm = np.zeros(num_items + 1, dtype=np.int32), num_items - len(hidden)
    row[order] = np.arange(1, num_items + 1)

    train, valid, test = (
        _rows(_warm(users[name], parts[name], row, num_warm, tails=name == "train")) for name in PARTS
    )
    queries = list(_cold(users["test"], parts["test"], row, num_warm))
    cold = _rows([query for query in queries if query[2]])
    if not len(cold):
        raise DataError(
            f"none of the {len(hidden)} hidden items is asked for in test. Hide a larger share than {share}."
        )
    report = {"hidden_items": len(hidden), "cold_queries_without_history": len(queries) - len(cold)}
    ids = split.catalogue.decode(order)
    warm = replace(split, catalogue=Catalogue(ids[:num_warm]), train=train, valid=valid, test=test, report=report)
    return HiddenItems(warm, replace(warm, catalogue=Catalogue(ids), test=cold))


def _warm(users: Sequence[str], part: SequenceDataset, row: np.ndarray, num_warm: int, *, tails: bool) -> Iterator[Row]:
    """Rows without the hidden items; one that asks nothing any more is left out (`tails`: its last query is enough)."""
    for user, (items, first, *_) in zip(users, part, strict=True):
        kept = row[items] <= num_warm
        first = max(int(kept[:first].sum()), 1)
        if kept.sum() >= first + (not tails):
            yield user, row[items[kept]], first


def _cold(users: Sequence[str], part: SequenceDataset, row: np.ndarray, num_warm: int) -> Iterator[Row]:
    """A row for every query whose target is hidden."""
    for user, (items, first, *_) in zip(users, part, strict=True):
        kept = row[items] <= num_warm
        for at in range(first, len(items)):
            if not kept[at]:
                history = row[items[:at][kept[:at]]]
                yield user, np.append(history, row[items[at]]), len(history)


def _rows(rows: Iterator[Row] | list[Row]) -> Dataset:
    made = list(rows)
    asked = np.array([len(items) - first + 1 for _, items, first in made], dtype=np.int64)
    columns = {
        USER_ID: pa.array([user for user, _, _ in made], pa.string()),
        ITEM_IDS: pa.array([items for _, items, _ in made], pa.list_(pa.int32())),
        FIRST_TARGET: pa.array([first for _, _, first in made], pa.int32()),
        QUERY_START: pa.array(np.cumsum(asked) - asked),
    }
    return Dataset(pa.table(columns))

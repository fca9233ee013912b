"""User histories as flat arrays, and the rows cut from them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict

from ..catalogue import Catalogue
from ..errors import DataError
from .columns import DOMAIN, INTERACTIONS, ITEM_ID, ITEMS, PARTS, SPLIT, TIMESTAMP, USER_ID
from .interactions import table_of
from .split import FIRST_TARGET, ITEM_IDS, QUERY_START


@dataclass(frozen=True)
class Histories:
    """Flat arrays over all N interactions, by user (as first seen), oldest first, ties in input order."""

    users: list[str]
    user: np.ndarray  # (N,) 0-based
    item: np.ndarray  # (N,) internal ids
    time: np.ndarray  # (N,)
    part: np.ndarray  # (N,) preset part, else 0
    catalogue: Catalogue
    domain: str
    report: dict[str, int]

    @classmethod
    def of(cls, market: DatasetDict, by_part: bool = False) -> Histories:
        table, items = table_of(market[INTERACTIONS]).combine_chunks(), table_of(market[ITEMS])
        domains = pc.unique(items[DOMAIN]).to_pylist()
        if len(domains) != 1:
            raise DataError(
                f"a split is of one domain, but the market has {domains}. Split each of by_domain(market), then "
                "combine."
            )
        codes = pc.dictionary_encode(table[USER_ID]).combine_chunks()
        users = codes.dictionary.to_pylist()
        user = codes.indices.to_numpy().astype(np.int64)
        row = pc.index_in(table[ITEM_ID], value_set=items[ITEM_ID].combine_chunks())
        if row.null_count:
            raise DataError(
                f"{row.null_count} interactions are with items that the item table lacks. Use load_interactions."
            )
        item = row.to_numpy() + 1
        time = table[TIMESTAMP].to_numpy()
        part = pc.index_in(table[SPLIT], value_set=pa.array(PARTS)).to_numpy() if by_part else np.zeros_like(user)
        order = np.lexsort((time, part, user))  # stable: equal times keep the order of the input
        same_user = user[order][1:] == user[order][:-1]
        pairs = np.unique(user * (len(items) + 1) + item)
        report = {
            "users": len(users),
            "items": items.num_rows,
            "interactions": len(user),
            "cold_items": items.num_rows - len(np.unique(item)),
            "repeated_interactions": len(user) - len(pairs),
            "tied_timestamps": int((same_user & (np.diff(time[order]) == 0)).sum()),
            "moved_by_sorting": int((same_user & (np.diff(order) < 0)).sum()),
        }
        return cls(
            users,
            user[order],
            item[order],
            time[order],
            part[order],
            Catalogue(items[ITEM_ID].to_pylist()),
            domains[0],
            report,
        )

    def take(self, index: np.ndarray) -> Histories:
        """Some interactions, in the order of `index`, which keeps each user's together."""
        arrays = {name: getattr(self, name)[index] for name in ("user", "item", "time", "part")}
        return replace(self, **arrays)

    def lengths(self) -> np.ndarray:
        return np.bincount(self.user, minlength=len(self.users))

    def position(self) -> np.ndarray:
        """Place of each interaction within its user, from 0."""
        lengths = self.lengths()
        return np.arange(len(self.user)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


@dataclass(frozen=True)
class Windows:
    """W windows of at most `max_length + 1` items: the row of each, and its start, end and first target in that row."""

    row: np.ndarray  # (W,)
    start: np.ndarray  # (W,)
    end: np.ndarray  # (W,)
    first: np.ndarray  # (W,)

    @classmethod
    def cut(cls, length: np.ndarray, first: np.ndarray, max_length: int, stride: int) -> Windows:
        """Cut rows so that every position in `[first, length)` is a target exactly once.

        A target sees up to `max_length` items in the first window, at least `max_length + 1 - stride` in later ones;
        so stride 1 gives every target its full history.
        """
        width = max_length + 1
        last = np.maximum(length - width, 0)  # where the last window of a row starts
        begin = np.minimum(np.maximum(first - max_length, 0), last)
        number = 1 - (begin - last) // stride  # ceil((last - begin) / stride) + 1
        row = np.repeat(np.arange(len(length)), number)
        step = np.arange(len(row)) - np.repeat(np.cumsum(number) - number, number)
        start = np.minimum(begin[row] + step * stride, last[row])
        end = np.minimum(start + width, length[row])
        return cls(row, start, end, np.where(step == 0, first[row], np.roll(end, 1)))


def rows(histories: Histories, users: np.ndarray, windows: Windows) -> Dataset:
    """The rows of one part; `users[w.row]` is the user of a window."""
    user = users[windows.row]
    size = windows.end - windows.start
    stops = np.cumsum(size)
    offsets = np.cumsum(histories.lengths()) - histories.lengths()
    where = np.arange(size.sum()) + np.repeat(offsets[user] + windows.start - (stops - size), size)
    values = pa.array(histories.item[where].astype(np.int32))
    queries = windows.end - windows.first + 1
    return Dataset(
        pa.table(
            {
                USER_ID: pa.array(histories.users, pa.string()).take(pa.array(user)),
                ITEM_IDS: pa.ListArray.from_arrays(np.concatenate([[0], stops]).astype(np.int32), values),
                FIRST_TARGET: pa.array((windows.first - windows.start).astype(np.int32)),
                QUERY_START: pa.array((np.cumsum(queries) - queries).astype(np.int64)),
            }
        )
    )

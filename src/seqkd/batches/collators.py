"""Rows of a split -> one packed batch: several sequences share a row of the batch, so next to nothing is padding.

A row of a split carries all its queries: position `p` asks "what comes after `item_ids[:p]`?". One forward pass over
the packed batch answers every one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as List
from typing import Any, NamedTuple, Protocol

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..catalogue import PADDING, Catalogue
from ..errors import ConfigError, DataError

UNLABELLED = -100  # target of a query whose answer is not known; the loss skips it


class Sequence(NamedTuple):
    """One row of a split, without a copy: `item_ids (n,)`, its first target position, first query id and user."""

    item_ids: np.ndarray
    first_target: int
    query_start: int
    user: int = 0  # internal id; 0 where it is not known


class SequenceDataset(Dataset):
    """The rows of one part of a split as zero-copy views of its Arrow columns.

    Args:
        users: numbers the users, for models that know them (`split.users`); without it every user is 0, unknown.
        avoid: `(2, n)` internal ids of users and of items that are never drawn as their negatives, beside what they
            have: what another model recommends to them.

    Raises:
        DataError: an item id lies outside `1..num_items`, or pairs are avoided of users who are not numbered.
    """

    def __init__(
        self, rows: datasets.Dataset, num_items: int, users: Catalogue | None = None, avoid: Tensor | None = None
    ) -> None:
        table = rows.with_format("arrow")[:]
        column = table.column("item_ids").combine_chunks()
        self.offsets = column.offsets.to_numpy()
        self.values = column.values.to_numpy()
        self.first_target = table.column("first_target").to_numpy()
        self.query_start = table.column("query_start").to_numpy()
        self.num_items = num_items
        self._check(table, num_items)
        names = table.column("user_id").combine_chunks().dictionary_encode()
        self.owner = names.indices.to_numpy()  # (rows,) rows of one user share a number
        self.users, self.user = users, np.zeros(len(self), dtype=np.int64)
        if users is not None:
            self.user = users.encode(names.dictionary.to_pylist())[self.owner]
        elif avoid is not None:
            raise DataError("pairs to avoid name users by number, but these rows number none. Give users=split.users.")
        self.avoid = avoid

    def _check(self, table, num_items: int) -> None:
        items = self.values[self.offsets[0] : self.offsets[-1]]
        wrong = np.flatnonzero((items <= PADDING) | (items > num_items))
        if wrong.size:
            at = int(wrong[0] + self.offsets[0])
            row = int(np.searchsorted(self.offsets, at, side="right") - 1)
            raise DataError(
                f"column item_ids, row {row} (user {table.column('user_id')[row].as_py()!r}), position "
                f"{at - self.offsets[row]}: item {self.values[at]} is outside 1..{num_items}. "
                "Split the data with the catalogue of this model, or grow the model with add_items first."
            )

    def __len__(self) -> int:
        return len(self.first_target)

    def __iter__(self) -> Iterator[Sequence]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> Sequence:
        items = self.values[self.offsets[row] : self.offsets[row + 1]]
        return Sequence(items, int(self.first_target[row]), int(self.query_start[row]), int(self.user[row]))

    def asked(self, tail: bool) -> tuple[np.ndarray, np.ndarray]:
        """First query id and number of queries of every row, `(rows,)` each."""
        return self.query_start, np.maximum(np.diff(self.offsets) - self.first_target + tail, 1)

    @property
    def new_from(self) -> np.ndarray:
        """Where a row begins to tell what no row before it told, `(rows,)`: rows cut from one history overlap."""
        opens = np.ones(len(self), dtype=bool)  # the first row of its user
        opens[1:] = self.owner[1:] != self.owner[:-1]
        return np.where(opens, 0, self.first_target).astype(np.int64)

    @property
    def num_queries(self) -> int:
        """Query ids this part reserves (labelled ones and tails)."""
        if not len(self):
            return 0
        return int((self.query_start + np.diff(self.offsets) - self.first_target + 1).max())


def require_sequences(rows: Any) -> None:
    """Refuse a bare part of a split where its rows are wanted.

    Raises:
        DataError: `rows` are none of `SequenceDataset`.
    """
    if not isinstance(rows, SequenceDataset):
        raise DataError(
            f"these rows are a {type(rows).__name__}, which tells neither items nor users. Wrap the part: "
            "SequenceDataset(split.train, len(split.catalogue), split.users)."
        )


class Collator(Protocol):
    """Lays out rows of a data set as the batch that a model reads; the trainer tells it the seed and the epoch."""

    seed: int
    epoch: int

    def __call__(self, rows: Any, /) -> dict[str, Tensor]: ...


class QueryCollator:
    """Packs sequences into `(B, H)` rows and flattens their queries to `(Q,)`.

    Args:
        max_length: H, the slots of a row; older items are left out.
        tail: also ask the unlabelled query after the last item (a teacher can answer it, a label cannot).
        pack: several sequences per row. Off for models that see padding (the original SASRec), one sequence per row.
        padding_side: `right` numbers the positions of a sequence 0, 1, ...; `left` numbers them so that its last slot
            has position H, and 0 is left to padding. When `pack` is off, also where padding goes.
        seen: add `seen_query (S,)` and `seen_items (S,)`, the whole history of every query as pairs.

    Returns (call):
        `item_ids`, `sequence_ids`, `position_ids` `(B, H)`; `query_index`, `targets`, `query_ids` and
        `history_lengths` (items before the query, also those cut off) `(Q,)`; all int64.
    """

    def __init__(
        self, max_length: int, *, tail: bool = False, pack: bool = True, padding_side: str = "right", seen: bool = False
    ) -> None:
        self.max_length, self.tail, self.pack, self.padding_side, self.seen = max_length, tail, pack, padding_side, seen
        self.seed = self.epoch = 0  # nothing is drawn here

    def __call__(self, sequences: List[Sequence]) -> dict[str, Tensor]:
        # an empty history has no slot to answer from
        first = np.array([max(s.first_target, 1) for s in sequences], dtype=np.int64)
        last = np.array([len(s.item_ids) + self.tail for s in sequences], dtype=np.int64)  # queries are first..last-1
        end = np.maximum(last - 1, 0)  # slots 0..end-1 of a row are read: the last query reads item end-1
        start = np.maximum(end - self.max_length, 0)
        lengths = end - start
        row, column, width = self._layout(lengths)
        height = int(row.max(initial=-1)) + 1

        sizes = np.array([len(s.item_ids) for s in sequences], dtype=np.int64)
        items = np.concatenate(
            [s.item_ids for s in sequences] or [np.zeros(0, np.int64)]
        )  # all rows, one after the other
        base = np.cumsum(sizes) - sizes  # where each begins

        sequence = np.repeat(np.arange(len(sequences)), lengths)
        within = ranges(lengths)
        slot = (row * width + column)[sequence] + within
        batch = np.zeros((3, height * width), dtype=np.int64)
        batch[0, slot] = items[(base + start)[sequence] + within]
        batch[1, slot] = sequence + 1
        newest_last = self.max_length + 1 - lengths if self.padding_side == "left" else np.zeros_like(lengths)
        batch[2, slot] = within + newest_last[sequence]

        first = np.maximum(first, start + 1)  # queries whose whole history was cut off are not asked
        asked = np.maximum(last - first, 0)
        owner = np.repeat(np.arange(len(sequences)), asked)
        position = first[owner] + ranges(asked)
        query_start = np.array([s.query_start - s.first_target for s in sequences], dtype=np.int64)
        known = position < sizes[owner]
        targets = np.full(len(owner), UNLABELLED, dtype=np.int64)
        targets[known] = items[(base[owner] + position)[known]]
        out = {
            "item_ids": batch[0].reshape(height, width),
            "sequence_ids": batch[1].reshape(height, width),
            "position_ids": batch[2].reshape(height, width),
            "query_index": (row * width + column - start)[owner] + position - 1,
            "targets": targets,
            "query_ids": query_start[owner] + position,
            "history_lengths": position,
        }
        if self.seen:
            out["seen_query"] = np.repeat(np.arange(len(owner)), position)
            out["seen_items"] = items[np.repeat(base[owner], position) + ranges(position)].astype(np.int64)
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in out.items()}

    def _layout(self, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Row and first column of every sequence: the longest opens a row, the shortest fill it up."""
        if not self.pack:
            shift = self.max_length - lengths if self.padding_side == "left" else np.zeros_like(lengths)
            return np.arange(len(lengths)), shift, self.max_length
        width = int(min(self.max_length, lengths.sum()))
        row, column = np.zeros_like(lengths), np.zeros_like(lengths)
        order, sizes = np.argsort(-lengths, kind="stable").tolist(), lengths.tolist()
        i, j, current = 0, len(order) - 1, 0
        while i <= j:
            used = sizes[order[i]]
            row[order[i]], i = current, i + 1
            while i <= j and used + sizes[order[j]] <= width:
                row[order[j]], column[order[j]] = current, used
                used, j = used + sizes[order[j]], j - 1
            current += 1
        return row, column, width


def histories_of(batch: Mapping[str, Tensor]) -> Tensor:
    """What the queries of a batch have behind them as far as it is read, `(Q, H)`, 0 where there is nothing.

    Raises:
        ConfigError: the batch is of a model that reads no histories.
    """
    if "histories" in batch and batch["histories"].shape[1]:
        return batch["histories"]
    if "query_index" not in batch:
        raise ConfigError(
            "the history of a query is asked for, but this student reads none (MF, LightGCN). For CKD-MDSR set "
            "mask_history=False or candidates='catalogue'."
        )
    query, width = batch["query_index"], batch["item_ids"].shape[1]
    row, slot = query // width, query % width
    same = batch["sequence_ids"][row] == batch["sequence_ids"].flatten()[query][:, None]
    before = torch.arange(width, device=query.device) <= slot[:, None]
    return torch.where(same & before, batch["item_ids"][row], 0)


def ranges(counts: np.ndarray) -> np.ndarray:
    """`0..c-1` for every count, one after the other."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - counts, counts)

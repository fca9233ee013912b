"""A log that never stops, as blocks: each a split over all users and items known by its end."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset

from ..catalogue import Catalogue
from ..errors import CheckpointError, DataError
from .columns import ITEM_ID, PARTS
from .interactions import table_of
from .split import Split, list_parts

META, USERS, LOG, NEW_ITEMS = "block.json", "user_ids.json", "log.parquet", "items.parquet"
USER, ITEM, PART = "user", "item", "part"  # columns of a block's log
TRAIN, VALID, TEST = range(len(PARTS))
DROPPED = -1


def _no_log() -> Dataset:
    kinds = {USER: pa.int32(), ITEM: pa.int32(), PART: pa.int8()}
    return Dataset(pa.table({name: pa.array([], kind) for name, kind in kinds.items()}))


def _no_items() -> Dataset:
    return Dataset(pa.table({ITEM_ID: pa.array([], pa.string())}))


@dataclass(frozen=True, eq=False)
class Block(Split):
    """Block k of a stream: its own train, valid and test, in ids that only grow.

    `catalogue` and `users` hold whatever blocks 0 to k name, in the order of first appearance, so that a model of an
    earlier block keeps its rows and those of new users and items follow.

    Rows of a block with `queries="users"` (MF, LightGCN): in train all that a user trains on in this block, with the
    tail as the only query; in valid and test, before `first_target`, what is masked: train and the other of the two.
    The list may be empty: a user may have come for nothing but tests.
    Rows with `queries="positions"` (SASRec): histories over all blocks so far; the targets are of this block alone.

    Attributes:
        number: k, from 0.
        known_items, known_users: what earlier blocks name: new ones are numbered from there on.
        log: this block's interactions in order: internal `user` and `item`, `part` (place in `PARTS`, -1: dropped by
            the split) and, where times are known, `timestamp`. What later blocks read of this one.
        items: what is told about the items that are new in this block, texts or vectors: row i is of item
            `known_items + 1 + i`. Empty where the stream tells nothing (CCD's).
    """

    everyone: Catalogue = field(default_factory=lambda: Catalogue([]))
    number: int = 0
    known_items: int = 0
    known_users: int = 0
    log: Dataset = field(default_factory=_no_log)
    items: Dataset = field(default_factory=_no_items)

    @property
    def users(self) -> Catalogue:  # type: ignore[override]
        """All users of blocks 0 to k."""
        return self.everyone

    @property
    def queries(self) -> str:
        """`users` or `positions`: what its rows ask, the last word of the protocol."""
        return self.protocol.rsplit("-", 1)[-1]

    def pairs(self, part: str = "train") -> tuple[np.ndarray, np.ndarray]:
        """Users and items `(N,)` each, internal ids, of one part of this block alone, in order of time."""
        mine = self.columns[PART] == PARTS.index(part)
        return self.columns[USER][mine].astype(np.int64), self.columns[ITEM][mine].astype(np.int64)

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """The columns of `log`, `(N,)` each.

        Raises:
            DataError: the block was made by hand, without a log.
        """
        if not len(self.log):
            raise DataError(
                f"block {self.number} has rows, but no log. Make it with cut_stream, next_block or read_ccd."
            )
        table = table_of(self.log)
        return {name: table[name].to_numpy() for name in table.column_names}

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        """sha256 over the rows, the users, the place in the stream, the log and what is told about new items."""
        digest = hashlib.sha256(f"{self._rows.fingerprint} {self.everyone.fingerprint} {self._place}".encode())
        for name, values in sorted(self.columns.items()) if len(self.log) else ():
            digest.update(name.encode() + values.astype("<i8").tobytes())
        for name, column in sorted(_columns_of(self.items).items()):
            digest.update(name.encode() + column)
        return digest.hexdigest()

    @property
    def _rows(self) -> Split:
        """This block as any split: without users, place and log."""
        return Split(**{each.name: getattr(self, each.name) for each in fields(Split)})

    @property
    def _place(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("number", "known_items", "known_users")}

    def save(self, folder: str | os.PathLike) -> None:
        """Write what `Split.save` writes, `user_ids.json`, `log.parquet`, perhaps `items.parquet`, and `block.json`."""
        self._rows.save(folder)
        path = Path(folder)
        self.everyone.save(path, USERS)
        pq.write_table(table_of(self.log).replace_schema_metadata(None), path / LOG)
        if len(self.items):
            pq.write_table(table_of(self.items).replace_schema_metadata(None), path / NEW_ITEMS)
        (path / META).write_text(json.dumps(self._place | {"fingerprint": self.fingerprint}), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Block:
        """Read what `save` wrote.

        Raises:
            DataError: a file is missing, damaged or does not belong to the others.
        """
        path, split = Path(folder), Split.load(folder)
        try:
            meta = json.loads((path / META).read_text(encoding="utf-8"))
            told = meta.pop("fingerprint")
            rows = {each.name: getattr(split, each.name) for each in fields(Split)}
            log = Dataset(pq.read_table(path / LOG))
            items = Dataset(pq.read_table(path / NEW_ITEMS)) if (path / NEW_ITEMS).exists() else _no_items()
            block = cls(**rows, everyone=Catalogue.load(path / USERS), log=log, items=items, **meta)
        except (OSError, pa.ArrowException, json.JSONDecodeError, CheckpointError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} holds a split, but no complete block of a stream ({error}). Make it again with Block.save."
            ) from error
        if block.fingerprint != told:
            raise DataError(
                f"{path}: the files give the fingerprint {block.fingerprint[:12]}, but {META} says {told[:12]}. Some "
                "files are of another block; make it again."
            )
        return block


def _columns_of(items: Dataset) -> dict[str, bytes]:
    """The contents of an item table by column, whatever Arrow makes of their types."""
    if not len(items):
        return {}
    told = {}
    for name, column in zip(items.column_names, table_of(items).columns, strict=True):
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):  # vectors
            values, ends = list_parts(column)
            told[name] = values.astype("<f4").tobytes() + ends.astype("<i8").tobytes()
        else:
            told[name] = "\0".join(map(str, column.to_pylist())).encode()
    return told


def check_stream(blocks: Sequence[Block]) -> None:
    """Refuse blocks that do not follow each other.

    Raises:
        DataError: a block is missing or twice, or one does not grow from the block before it.
    """
    for number, block in enumerate(blocks):
        if block.number != number:
            raise DataError(
                f"block {block.number} stands at place {number} of the stream. Give all blocks from 0 on, each once, "
                "in order."
            )
        if number == 0:
            continue
        before = blocks[number - 1]
        for what, mine, theirs, known in (
            ("items", block.catalogue, before.catalogue, block.known_items),
            ("users", block.users, before.users, block.known_users),
        ):
            if known != len(theirs) or mine.item_ids[:known] != theirs.item_ids:
                raise DataError(
                    f"block {number} grows from {known} {what}, but block {number - 1} names {len(theirs)}, or others "
                    "in their places; ids must stay as they are. Give blocks of one stream."
                )
        if (block.domain, block.protocol) != (before.domain, before.protocol):
            raise DataError(
                f"block {number} is of {block.domain!r}, {block.protocol}, but block {number - 1} of "
                f"{before.domain!r}, {before.protocol}. Give blocks of one stream, split in one way."
            )

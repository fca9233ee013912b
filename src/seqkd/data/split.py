"""A split as data: three parts of rows over one catalogue, saved as a folder, and several domains made one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset

from ..catalogue import FILE_NAME, Catalogue
from ..errors import DataError
from .columns import PARTS, USER_ID
from .interactions import table_of

META = "split.json"
ITEM_IDS, FIRST_TARGET, QUERY_START = "item_ids", "first_target", "query_start"


@dataclass(frozen=True, eq=False)
class Split:
    """Three parts of one log, numbered by one catalogue.

    A row of a part: `user_id`, `item_ids` (internal ids, oldest first), `first_target`, `query_start`. Its
    queries are the positions p in `[first_target, len(item_ids)]`: history `item_ids[:p]`, target `item_ids[p]`; the
    last one, the tail, has no target. The id of a query is `query_start + p - first_target`; each part counts from 0.
    A training row whose only query is the tail asks for a set: what else does a user with these items want?

    `report` counts what was dropped, cut or is unusual.
    """

    catalogue: Catalogue
    train: Dataset
    valid: Dataset
    test: Dataset
    protocol: str
    domain: str
    report: dict[str, int] = field(default_factory=dict)

    def part(self, name: str) -> Dataset:
        """`train`, `valid` or `test` by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[name]

    @cached_property
    def users(self) -> Catalogue:
        """The users of the training part, numbered as they come; the others are unknown to models that know users."""
        return Catalogue(pc.unique(table_of(self.train)[USER_ID]).to_pylist())

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the catalogue and all rows: equal exactly when query ids mean the same."""
        digest = hashlib.sha256(self.catalogue.fingerprint.encode())
        for part in (self.train, self.valid, self.test):
            table = table_of(part).combine_chunks()
            flat, offsets = list_parts(table[ITEM_IDS])
            for values, kind in (
                (flat, "<i4"),
                (offsets, "<i8"),
                (table[FIRST_TARGET], "<i4"),
                (table[QUERY_START], "<i8"),
            ):
                digest.update(np.asarray(values).astype(kind).tobytes())
            digest.update("\0".join(table[USER_ID].to_pylist()).encode())
        return digest.hexdigest()

    def save(self, folder: str | os.PathLike) -> None:
        """Write `train/valid/test.parquet`, `item_ids.json` and, last, `split.json`."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        for name, part in zip(PARTS, (self.train, self.valid, self.test), strict=True):
            pq.write_table(table_of(part).replace_schema_metadata(None), path / f"{name}.parquet")
        self.catalogue.save(path)
        meta = {
            "protocol": self.protocol,
            "domain": self.domain,
            "report": self.report,
            "fingerprint": self.fingerprint,
        }
        (path / META).write_text(json.dumps(meta, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | os.PathLike) -> Split:
        """Read what `save` wrote.

        Raises:
            DataError: a file is missing, damaged or does not belong to the others (fingerprint).
        """
        path = Path(folder)
        try:
            meta = json.loads((path / META).read_text(encoding="utf-8"))
            train, valid, test = (Dataset(pq.read_table(path / f"{name}.parquet")) for name in PARTS)
            split = cls(
                Catalogue.load(path / FILE_NAME), train, valid, test, meta["protocol"], meta["domain"], meta["report"]
            )
        except (OSError, pa.ArrowException, json.JSONDecodeError, KeyError) as error:
            raise DataError(f"{path} holds no complete split ({error}). Make it again with Split.save.") from error
        if split.fingerprint != meta["fingerprint"]:
            raise DataError(
                f"{path}: the files give the fingerprint {split.fingerprint[:12]}, but {META} says "
                f"{meta['fingerprint'][:12]}. Some files are of another split; make it again."
            )
        return split


def combine(splits: Sequence[Split]) -> Split:
    """Several domains as one, for multi-domain pre-training: ids of items and users become `domain/id`.

    Raises:
        DataError: no split, a domain twice, or several protocols.
    """
    domains, protocols = [split.domain for split in splits], {split.protocol for split in splits}
    if len(set(domains)) != len(domains) or len(protocols) != 1:
        raise DataError(
            f"combine needs splits of different domains and one protocol, but got the domains {domains} and "
            f"protocols {sorted(protocols)}."
        )
    catalogue = Catalogue(f"{split.domain}/{item}" for split in splits for item in split.catalogue.item_ids)
    parts = []
    for name in PARTS:
        tables, items, queries = [], 0, 0
        for split in splits:
            table = table_of(split.part(name)).combine_chunks()
            tables.append(_shifted(table, split.domain, items, queries))
            items, queries = items + len(split.catalogue), queries + _query_count(table)
        parts.append(Dataset(pa.concat_tables(tables).combine_chunks()))
    report: dict[str, int] = {}
    for split in splits:
        report |= {f"{split.domain}/{key}": count for key, count in split.report.items()}
    train, valid, test = parts
    return Split(catalogue, train, valid, test, protocols.pop(), "+".join(domains), report)


def _shifted(table: pa.Table, domain: str, items: int, queries: int) -> pa.Table:
    flat, ends = list_parts(table[ITEM_IDS])
    lists = pa.ListArray.from_arrays(
        np.concatenate([[0], ends]).astype(np.int32), pa.array((flat + items).astype(np.int32))
    )
    return pa.table(
        {
            USER_ID: pc.binary_join_element_wise(pa.scalar(domain), table[USER_ID], "/"),
            ITEM_IDS: lists,
            FIRST_TARGET: table[FIRST_TARGET],
            QUERY_START: pc.add(table[QUERY_START], pa.scalar(queries, pa.int64())),
        }
    )


def _query_count(table: pa.Table) -> int:
    """Query ids that the rows reserve together."""
    lengths, first = pc.list_value_length(table[ITEM_IDS]).to_numpy(), table[FIRST_TARGET].to_numpy()
    return int((lengths - first + 1).sum())


def list_parts(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Flat values and row ends of a list column."""
    return pc.list_flatten(column).to_numpy(), np.cumsum(pc.list_value_length(column).to_numpy())

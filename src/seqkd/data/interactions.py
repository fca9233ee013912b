"""The door for data: any supported source in, one checked market out (`interactions` and `items`)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict

from ..errors import DataError
from .columns import DOMAIN, INTERACTION_COLUMNS, INTERACTIONS, ITEM_COLUMNS, ITEMS, RawMarket
from .normalise import interactions_table, items_table
from .readers import read

Source: TypeAlias = str | os.PathLike | Dataset | DatasetDict


def load_interactions(
    source: Source, *, domain: str | None = None, columns: Mapping[str, str | None] | None = None
) -> DatasetDict:
    """Read and check one log and its item table.

    Args:
        source: a folder or file of any supported format (see `seqkd.data.readers`), a data set on the Hub (`owner/name`
            or `hf://datasets/owner/name`), or a `Dataset`/`DatasetDict` with the columns below.
        domain: name of the domain (default: name of the folder or file). Where the data has a `domain` column, picks
            that domain.
        columns: our name -> your name, for example `{"user_id": "customer"}`; `{"timestamp": None}` says that the
            rows are already in order, oldest first.

    Returns:
        `interactions`: `user_id item_id domain: string`, `timestamp: int64`, optional `rating: float32` and `split`;
        `items`: `item_id domain title brand categories description: string`, optional `text_features image_features`
        (list<float32>). Items that only occur in interactions are appended to `items` with empty texts.

    Raises:
        DataError: with file, column, row and the mend.
    """
    raw = from_datasets(source) if isinstance(source, (Dataset, DatasetDict)) else read(source)
    name = (
        domain or _domain_of_items(raw) or (DOMAIN if isinstance(source, (Dataset, DatasetDict)) else _name_of(source))
    )
    columns = dict(columns or {})
    unknown = set(columns) - set(INTERACTION_COLUMNS) - set(ITEM_COLUMNS)
    if unknown:
        raise DataError(
            f"columns names {sorted(unknown)}, which are no columns of ours; ours are "
            f"{(*INTERACTION_COLUMNS, *ITEM_COLUMNS[2:])}."
        )
    interactions = interactions_table(raw, columns, name)
    items = items_table(raw, columns, interactions)
    market = as_market(interactions, items)
    if domain is not None and pc.unique(interactions[DOMAIN]).to_pylist() != [domain]:
        markets = by_domain(market)
        if domain not in markets:
            raise DataError(f"{raw.interactions_file} has no domain {domain!r}; it has {list(markets)}.")
        return markets[domain]
    return market


def from_datasets(source: Dataset | DatasetDict) -> RawMarket:
    """The tables of data that is already in memory."""
    if isinstance(source, Dataset):
        return RawMarket(table_of(source), None, "the data set")
    if INTERACTIONS not in source:
        raise DataError(
            f"the DatasetDict has {list(source)}, but needs {INTERACTIONS!r} and, for item texts, {ITEMS!r}."
        )
    items = table_of(source[ITEMS]) if ITEMS in source else None
    return RawMarket(table_of(source[INTERACTIONS]), items, INTERACTIONS, ITEMS)


def table_of(dataset: Dataset) -> pa.Table:
    """The rows of a data set as one Arrow table, selections applied."""
    return dataset.with_format("arrow")[:]


def as_market(interactions: pa.Table, items: pa.Table) -> DatasetDict:
    return DatasetDict({INTERACTIONS: Dataset(interactions.combine_chunks()), ITEMS: Dataset(items.combine_chunks())})


def by_domain(market: DatasetDict) -> dict[str, DatasetDict]:
    """One market per domain, in order of first appearance among the items."""
    interactions, items = table_of(market[INTERACTIONS]), table_of(market[ITEMS])
    return {
        domain: as_market(*(table.filter(pc.equal(table[DOMAIN], domain)) for table in (interactions, items)))
        for domain in pc.unique(items[DOMAIN]).to_pylist()
    }


def _domain_of_items(raw: RawMarket) -> str | None:
    """The one domain that the item table names, for logs without a domain column."""
    if raw.items is None or DOMAIN not in raw.items.column_names:
        return None
    domains = pc.unique(raw.items[DOMAIN]).to_pylist()
    return str(domains[0]) if len(domains) == 1 else None


def _name_of(source: str | os.PathLike) -> str:
    path = Path(source)
    if path.is_dir():
        return path.resolve().name or DOMAIN
    return path.name.split("@")[0].split(".")[0]  # name.csv.gz on disk, name@revision on the Hub

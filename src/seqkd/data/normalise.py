"""Raw tables into the two checked tables of a market."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import DataError
from . import checks
from .columns import (
    DOMAIN,
    FEATURE_COLUMNS,
    INTERACTION_COLUMNS,
    ITEM_COLUMNS,
    ITEM_ID,
    RATING,
    SPLIT,
    TEXT_COLUMNS,
    TIMESTAMP,
    USER_ID,
    RawMarket,
)
from .timestamps import timestamps

logger = logging.getLogger(__name__)


def interactions_table(raw: RawMarket, columns: Mapping[str, str | None], domain: str) -> pa.Table:
    """The checked interactions; `domain` is used where they name none."""
    table, file = raw.interactions, raw.interactions_file
    checks.refuse_repeated_columns(table, file)
    if table.num_rows == 0:
        raise DataError(f"{file} holds no interactions (only a header, or nothing). Check the export.")

    def take(name: str) -> tuple[pa.ChunkedArray, str]:
        found = checks.find_column(table, name, file, columns)
        return table[found], f"{file}, column {found!r}"

    present = {name for name in INTERACTION_COLUMNS if columns.get(name) or name in table.column_names}
    result = {USER_ID: checks.ids(*take(USER_ID)), ITEM_ID: checks.ids(*take(ITEM_ID))}
    in_order = TIMESTAMP in columns and columns[TIMESTAMP] is None
    if in_order or (TIMESTAMP not in present and SPLIT in present):
        logger.info("%s: no timestamps; the order of the rows stands for time", file)
        result[TIMESTAMP] = pa.chunked_array([pa.array(np.arange(table.num_rows, dtype=np.int64))])
    else:
        result[TIMESTAMP] = timestamps(*take(TIMESTAMP))
    result[DOMAIN] = checks.ids(*take(DOMAIN)) if DOMAIN in present else _constant(domain, table.num_rows)
    if RATING in present:
        result[RATING] = checks.ratings(*take(RATING))
    if SPLIT in present:
        result[SPLIT] = checks.parts(*take(SPLIT))
    return pa.table(result)


def items_table(raw: RawMarket, columns: Mapping[str, str | None], interactions: pa.Table) -> pa.Table:
    """The checked item table; items known from interactions only are appended with empty texts."""
    used = interactions.select([ITEM_ID, DOMAIN]).group_by([ITEM_ID, DOMAIN], use_threads=False).aggregate([])
    domains = pc.unique(interactions[DOMAIN]).to_pylist()
    if raw.items is None:
        return _textless(used)
    table, file = raw.items, raw.items_file
    checks.refuse_repeated_columns(table, file)
    if table.num_rows == 0:
        raise DataError(f"{file} holds no items (only a header, or nothing). Check the export, or leave the file out.")
    own = {name: columns.get(name) or name for name in ITEM_COLUMNS}
    id_column = own[ITEM_ID] if own[ITEM_ID] in table.column_names else checks.find_column(table, ITEM_ID, file, {})
    result = {ITEM_ID: checks.ids(table[id_column], f"{file}, column {id_column!r}")}
    if own[DOMAIN] in table.column_names:
        result[DOMAIN] = checks.ids(table[own[DOMAIN]], f"{file}, column {own[DOMAIN]!r}")
    elif len(domains) > 1:
        raise DataError(
            f"{file} has no column 'domain', but the interactions have the domains {domains}. Add the column."
        )
    else:
        result[DOMAIN] = _constant(domains[0], table.num_rows)
    for name in TEXT_COLUMNS:
        if columns.get(name) or name in table.column_names:
            found = checks.find_column(table, name, file, columns)
            result[name] = checks.text(table[found], f"{file}, column {found!r}")
        else:
            result[name] = _constant("", table.num_rows)
    for name in FEATURE_COLUMNS:
        if own[name] in table.column_names:
            result[name] = checks.features(table[own[name]], f"{file}, column {own[name]!r}")
    checks.refuse_duplicates((result[ITEM_ID], result[DOMAIN]), f"{file}, column {id_column!r}")
    items = pa.table(result)
    return _with_unknown(items, used, raw, table[id_column].type)


def _with_unknown(items: pa.Table, used: pa.Table, raw: RawMarket, items_type: pa.DataType) -> pa.Table:
    unknown = used.filter(pc.invert(pc.is_in(_keys(used), value_set=_keys(items).combine_chunks())))
    if unknown.num_rows == 0:
        return items
    message = (
        f"{unknown.num_rows} of the {used.num_rows} items in {raw.interactions_file} "
        f"({unknown.num_rows / used.num_rows:.1%}) "
        f"are not in {raw.items_file}: for example {unknown[ITEM_ID].slice(0, 3).to_pylist()}, while the item "
        "table has ids like "
        f"{items[ITEM_ID].slice(0, 3).to_pylist()}, stored as {items_type}"
    )
    if unknown.num_rows == used.num_rows:
        raise DataError(f"{message}. Write the ids of both files in the same way.")
    if any(name in items.column_names for name in FEATURE_COLUMNS):
        raise DataError(
            f"{message}. They have no feature vector: add them to the item table or drop their interactions."
        )
    logger.warning("%s; they are kept with empty texts", message)
    return pa.concat_tables([items, _textless(unknown)])


def _keys(table: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(table[DOMAIN], table[ITEM_ID], "\0")  # NUL cannot occur in an id


def _textless(used: pa.Table) -> pa.Table:
    texts = {name: _constant("", used.num_rows) for name in TEXT_COLUMNS}
    return pa.table({ITEM_ID: used[ITEM_ID], DOMAIN: used[DOMAIN], **texts})


def _constant(value: str, rows: int) -> pa.ChunkedArray:
    return pa.chunked_array([pa.repeat(pa.scalar(value, pa.string()), rows)])

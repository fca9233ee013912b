"""The k-core of a market."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import DatasetDict

from ..errors import DataError
from .columns import DOMAIN, INTERACTIONS, ITEM_ID, ITEMS, USER_ID
from .interactions import as_market, table_of

logger = logging.getLogger(__name__)


def k_core(market: DatasetDict, k: int) -> DatasetDict:
    """Drop users and items with fewer than `k` interactions until none is left; items leave the item table too.

    Raises:
        DataError: nothing remains, or several domains.
    """
    table, items = table_of(market[INTERACTIONS]), table_of(market[ITEMS])
    if len(pc.unique(items[DOMAIN])) != 1:
        raise DataError(
            f"a k-core is of one domain, but the market has {pc.unique(items[DOMAIN]).to_pylist()}. Use "
            "by_domain(market)."
        )
    codes = [pc.dictionary_encode(table[name].combine_chunks()).indices.to_numpy() for name in (USER_ID, ITEM_ID)]
    kept = np.arange(table.num_rows)
    while len(kept):
        enough = np.logical_and.reduce([np.bincount(code[kept])[code[kept]] >= k for code in codes])
        if enough.all():
            break
        kept = kept[enough]
    if not len(kept):
        raise DataError(f"the {k}-core of {table.num_rows} interactions is empty. Choose a smaller k.")
    core = table.take(pa.array(kept))
    core_items = items.filter(pc.is_in(items[ITEM_ID], value_set=pc.unique(core[ITEM_ID])))
    logger.info(
        "%d-core: %d of %d interactions, %d of %d items",
        k,
        core.num_rows,
        table.num_rows,
        core_items.num_rows,
        items.num_rows,
    )
    return as_market(core, core_items)

"""Whom a stream might forget: one row for each user of earlier blocks, to be rehearsed while a new block is learned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor

from ..batches.collators import SequenceDataset
from ..batches.edges import Neighbours
from ..catalogue import PADDING
from ..data.columns import USER_ID
from ..data.interactions import table_of
from ..data.split import FIRST_TARGET, ITEM_IDS, QUERY_START
from ..data.stream import Block
from ..evaluation.stream import asks_for_sets
from ..knowledge import Knowledge
from ..knowledge.export import export
from ..recommenders.recommender import RecommenderModel

PARTS = ("test", "valid", "train")  # where the longest history of a user is


def rehearsal_rows(blocks: Sequence[Block], own: Block | None = None) -> Dataset:
    """One row for each user whom a source knows, in their order; its only query is the tail.

    In a stream of sets a row holds what the user has in the training parts of the last two blocks, as far as the source
    knows the items (spec ccd 5.4: these are masked); many rows are empty. In a stream of sequences it is the history as
    of the block in which the user was last seen, of users known before the last block, whatever the source.

    Args:
        own: the block to which the source has been grown: the last of `blocks` (the updated student), by default the
            one before (a proxy).
    """
    *earlier, block = blocks
    if not asks_for_sets(block):
        table = _newest_rows(earlier)
        return _tails(table[USER_ID], table[ITEM_IDS].combine_chunks())
    own = own or earlier[-1]
    items = _recent_items(earlier[-1], block, own)
    kept = items != PADDING
    ends = kept.sum(dim=1).cumsum(0)
    lists = pa.ListArray.from_arrays(np.concatenate([[0], ends]).astype(np.int32), items[kept].int().numpy())
    return _tails(pa.array(own.users.item_ids, pa.string()), lists)


def rows_of_everyone(blocks: Sequence[Block]) -> Dataset:
    """The training rows of the last of `blocks`, and behind them one for each earlier user who is not among them.

    The latter have no label, but a teacher can be heard about them: in a stream of sets they are empty, in one of
    sequences the history so far, asked at its end.
    """
    *earlier, block = blocks
    train = table_of(block.train).combine_chunks()
    if not earlier:
        return block.train
    table = _newest_rows(earlier) if not asks_for_sets(block) else _empty_rows(earlier[-1])
    others = table.filter(pc.invert(pc.is_in(table[USER_ID], train[USER_ID].combine_chunks())))
    if not len(others):
        return block.train
    start = SequenceDataset(block.train, len(block.catalogue)).num_queries
    tails = table_of(_tails(others[USER_ID], others[ITEM_IDS].combine_chunks(), start))
    return Dataset(pa.concat_tables([train, tails.select(train.column_names).cast(train.schema)]).combine_chunks())


def _tails(users: pa.ChunkedArray | pa.Array, lists: pa.ListArray, start: int = 0) -> Dataset:
    """Rows whose only query is what comes after all items."""
    size = pc.list_value_length(lists)
    queries = pa.array(np.arange(start, start + len(lists), dtype=np.int64))
    columns = {USER_ID: users, ITEM_IDS: lists, FIRST_TARGET: size.cast(pa.int32()), QUERY_START: queries}
    return Dataset(pa.table(columns))


def _empty_rows(block: Block) -> pa.Table:
    users = pa.array(block.users.item_ids, pa.string())
    nothing = pa.ListArray.from_arrays(np.zeros(len(users) + 1, np.int32), pa.array([], pa.int32()))
    return pa.table({USER_ID: users, ITEM_IDS: nothing})


def _recent_items(before: Block, block: Block, own: Block) -> Tensor:
    """`(U, n)` of the users and items of `own`: ascending, filled up with 0."""
    edges = np.unique(np.concatenate([block_edges(before), block_edges(block)], axis=1), axis=1)
    users, items = torch.from_numpy(edges)
    known = (users <= len(own.users)) & (items <= len(own.catalogue))
    return Neighbours.of(users[known], items[known], len(own.users)).lists(torch.arange(1, len(own.users) + 1))


def _newest_rows(blocks: Sequence[Block]) -> pa.Table:
    """The longest row of the newest block in which each user is."""
    tables, seen = [], pa.array([], pa.string())
    for block in reversed(blocks):
        for part in PARTS:
            table = table_of(block.part(part)).select([USER_ID, ITEM_IDS])
            last = len(table) - 1 - np.unique(table[USER_ID].to_pylist()[::-1], return_index=True)[1]
            table = table.take(np.sort(last))
            table = table.filter(pc.invert(pc.is_in(table[USER_ID], seen)))
            tables.append(table)
            seen = pa.concat_arrays([seen, table[USER_ID].combine_chunks().cast(pa.string())])
    return pa.concat_tables(tables).combine_chunks()


def block_edges(block: Block) -> np.ndarray:
    """Users and items of the block's own training, `(2, E)` internal ids."""
    return np.stack(block.pairs("train"))


def listen(model: RecommenderModel, own: Block, rows: Dataset, block: Block, k: int, total: int = 0) -> Knowledge:
    """The best k items of a model for rehearsal rows, without what these hold, as knowledge about a later block.

    Args:
        own: the block to which the model has been grown; it cannot name items that came after.
        rows: about users of that block alone.
        total: rows of what is told; it says nothing about those beyond its own.
    """
    told = export(model, rows, split=own, part="rehearsal", k=k, filter_seen=True, batch_size=512)
    tables = {name: told.table(name) for name in told.tables}
    more = max(total - len(rows), 0)
    padded = {name: F.pad(table, (0, 0, 0, more)) for name, table in tables.items()}
    return Knowledge.from_tables(padded, source=told.source, catalogue=block.catalogue)


def best_pairs(told: Sequence[Knowledge], k: int) -> Tensor:
    """`(2, n)` users and the first k items in any of the lists about rehearsal rows of sets, user i in row i - 1; all
    tell of as many rows."""
    items = torch.cat([one.table("query_topk")[:, :k] for one in told], dim=1).long()
    users = torch.arange(1, len(items) + 1)[:, None].expand_as(items)
    kept = items != PADDING
    return torch.stack([users[kept], items[kept]]).unique(dim=1)

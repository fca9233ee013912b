"""A model's metrics on one block of a stream, whichever block it has been grown to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset

from ..batches.collators import SequenceDataset, ranges
from ..batches.target_sets import TargetSets
from ..data.columns import USER_ID
from ..data.interactions import table_of
from ..data.split import FIRST_TARGET, ITEM_IDS, QUERY_START, list_parts
from ..data.stream import Block
from ..errors import ConfigError, DataError
from ..recommenders.recommender import RecommenderModel
from ..recommenders.user_recommender import UserRecommender
from .ranks import metrics_of, rank_targets

PARTS = ("valid", "test")
QUERIES = ("users", "positions")
SLICES = ("old_users", "new_users", "new_items")


def block_metrics(
    model: RecommenderModel,
    block_i: Block,
    block_k: Block,
    part: str = "test",
    ks: Sequence[int] = (20, 50, 100),
    *,
    skip_unknown: bool = False,
    batch_size: int = 512,
) -> dict[str, float]:
    """How a model that was last grown to block k answers the queries of block i, over the whole catalogue of block k.

    In blocks of sets each user is asked once for all his targets and means are over users; in blocks of sequences each
    target is asked after what comes before it and means are over targets. What is before the targets in a row is not
    ranked; items of other blocks are.

    A frozen model is asked about a later block (i > k), too. Items that came after it are left out of the histories it
    reads, and as targets they are not found. Nor is whatever is asked by users whom it cannot answer: those after it,
    unless it answers from histories, and those of whom it knows no item then.

    Args:
        block_k: the block the model has been grown to.
        part: `valid` or `test`.
        skip_unknown: leave users after block k out of all means, as the authors' release does. A frozen model then
            looks better than it is.

    Returns:
        `recall@k` and `ndcg@k` for every k, and how many `users` and `targets` they rest on; the same with
        `old_users/`, `new_users/` and `new_items/` before the name. Users and items are new that no block before i
        names; to the last belong a user's new targets only, ranked among all items. NaN where there are none.

    Raises:
        ConfigError: `part` is neither word, a cut-off is no smaller than the catalogue, or the model is not of the size
            of block k or does not read as much as the rows of block i are long.
        DataError: the blocks are not of one stream, or the protocol of block i does not say what it asks.
    """
    if part not in PARTS:
        raise ConfigError(f"part must be one of {PARTS}, got {part!r}.")
    _check_sizes(model, block_i, block_k, ks)
    frozen = block_i.number > block_k.number
    later = block_i if frozen else block_k
    kind = TargetSets if asks_for_sets(block_i) else SequenceDataset
    rows = kind(block_i.part(part), len(later.catalogue), later.users)
    truth = _targets(model, rows)
    dataset, chosen = rows, np.arange(len(rows))  # what is asked, and the rows of it
    if frozen:
        known = rows.user <= len(block_k.users)
        if skip_unknown:
            truth = truth.where(known[truth.row])
        if skip_unknown or (isinstance(model, UserRecommender) and not model.unknown_users):
            chosen = np.flatnonzero(known)
        reduced = _without_items_after(block_i.part(part), len(block_k.catalogue)).select(chosen)
        dataset = kind(reduced, len(block_k.catalogue), block_k.users)
    ranks = rank_targets(model, dataset, depth=max(ks), batch_size=batch_size)
    asked = _targets(model, dataset)
    if len(ranks.ranks) != len(asked.row):
        raise ConfigError(
            f"block {block_i.number} asks for {len(asked.row)} targets of the {part} part, but {type(model).__name__} "
            f"was asked for {len(ranks.ranks)}: rows are longer than what it reads, and queries at their beginning are "
            f"left out. Cut the stream with max_length={model.config.max_position_embeddings}."
        )
    ranked = _Targets(chosen[ranks.rows], ranks.targets)
    metrics = _means(ranked, ranks.ranks, truth, rows, ks)
    for name in SLICES:
        found, all_of = (_in_slice(name, targets, block_i, rows.user) for targets in (ranked, truth))
        told = _means(ranked.where(found), ranks.ranks[found], truth.where(all_of), rows, ks)
        metrics |= {f"{name}/{metric}": value for metric, value in told.items()}
    return metrics


def asks_for_sets(block: Block) -> bool:
    """Whether a block asks each user for a set, so that its valid and test parts are read as `TargetSets`.

    Raises:
        DataError: its protocol does not tell.
    """
    if block.queries not in QUERIES:
        raise DataError(
            f"the protocol of block {block.number}, {block.protocol!r}, does not say what its rows ask. It must end in "
            f"-{' or -'.join(QUERIES)}, as that of a block from a stream does."
        )
    return block.queries == "users"


class _Targets(NamedTuple):
    """T targets: the row each is of and its internal id, `(T,)` each."""

    row: np.ndarray
    item: np.ndarray

    def where(self, chosen: np.ndarray) -> _Targets:
        return _Targets(self.row[chosen], self.item[chosen])


def _targets(model: RecommenderModel, dataset: SequenceDataset) -> _Targets:
    """The targets of all rows that a model is asked for, row by row."""
    # a model that knows the user can answer him without a history, see the collators
    least = (dataset.user == 0).astype(np.int64) if isinstance(model, UserRecommender) else 1
    if isinstance(dataset, TargetSets):
        items, row = dataset.targets_of(torch.tensor(dataset.query_start))
        return _Targets(row, items).where((dataset.first_target >= least)[row])
    first = np.maximum(dataset.first_target, least)
    count = np.maximum(np.diff(dataset.offsets) - first, 0)
    row = np.repeat(np.arange(len(dataset)), count)
    return _Targets(row, dataset.values[(dataset.offsets[:-1] + first)[row] + ranges(count)].astype(np.int64))


def _in_slice(name: str, targets: _Targets, block: Block, user: np.ndarray) -> np.ndarray:
    """Which targets belong to a slice, `(T,)`; `user (rows,)` in the ids of the stream."""
    if name == "new_items":
        return targets.item > block.known_items
    return (user[targets.row] > block.known_users) == (name == "new_users")


def _means(
    ranked: _Targets, ranks: np.ndarray, truth: _Targets, rows: SequenceDataset, ks: Sequence[int]
) -> dict[str, float]:
    """Metrics of what was ranked, `ranks (R,)`; what is true and was not asked for, `T - R` targets, is not found."""
    depth = max(ks)
    sizes = np.bincount(truth.row, minlength=len(rows)) if isinstance(rows, TargetSets) else np.ones(len(rows), int)
    counts = np.zeros((sizes.max(initial=0) + 1, depth + 1), dtype=np.int64)
    np.add.at(counts, (sizes[ranked.row], ranks), 1)
    counts[:, depth] += np.bincount(sizes[truth.row], minlength=len(counts)) - counts.sum(1)
    metrics = metrics_of(torch.from_numpy(counts), ks)
    return {**metrics, "users": len(np.unique(rows.user[truth.row])), "targets": len(truth.row)}


def _without_items_after(rows: Dataset, num_items: int) -> Dataset:
    """The same rows without items above `num_items`, among histories and targets alike."""
    table = table_of(rows)
    items, ends = list_parts(table[ITEM_IDS])
    kept = np.concatenate([[0], np.cumsum(items <= num_items)])  # how many are before each place
    starts = np.concatenate([[0], ends])
    first = kept[starts[:-1] + table[FIRST_TARGET].to_numpy()] - kept[starts[:-1]]
    lists = pa.ListArray.from_arrays(
        kept[starts].astype(np.int32), pa.array(items[items <= num_items].astype(np.int32))
    )
    columns = {ITEM_IDS: lists, FIRST_TARGET: pa.array(first.astype(np.int32))}
    return Dataset(pa.table({USER_ID: table[USER_ID], **columns, QUERY_START: table[QUERY_START]}))


def _check_sizes(model: RecommenderModel, block_i: Block, block_k: Block, ks: Sequence[int]) -> None:
    early, late = sorted((block_i, block_k), key=lambda block: block.number)
    for name, few, many in (("items", early.catalogue, late.catalogue), ("users", early.users, late.users)):
        if few.item_ids != many.item_ids[: len(few)]:
            raise DataError(
                f"blocks {early.number} and {late.number} number their {name} otherwise, so they are not of one "
                "stream. Take both from the same one."
            )
    users, items = model.users, model.config.num_items
    if items != len(block_k.catalogue) or (users is not None and users != block_k.users):
        told = f"{items} items" + ("" if users is None else f" and {len(users)} users")
        raise ConfigError(
            f"{type(model).__name__} has {told}, but block {block_k.number} has {len(block_k.catalogue)} and "
            f"{len(block_k.users)}. Grow the model to the block, or give as block_k the block it was last grown to."
        )
    if max(ks) >= items:
        raise ConfigError(
            f"metrics at {max(ks)} of {items} items say nothing: whatever is asked for is among them. Give smaller ks."
        )

"""What a stream leaves behind: a model's metrics on one block, and the matrix a[k][i] over all of them with LA, RA, H.

a[k][i] is a metric on block i of the model after block k. The learning average LA (its diagonal) says how well new
blocks are learned, the retained average RA (its last row) how well old ones are kept, and H is their harmonic mean
(Lee et al., CCD, KDD 2024; the arithmetic is that of the same authors' CSTRec, WSDM 2026).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any, NamedTuple

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
from ..files.markdown import grid, line
from ..recommenders.recommender import RecommenderModel
from ..recommenders.user_recommender import UserRecommender
from .ranks import metrics_of, rank_targets
from .report import pretty, show
from .results import Spread

PARTS = ("valid", "test")
QUERIES = ("users", "positions")
SLICES = ("old_users", "new_users", "new_items")


# ---- one model on one block -----------------------------------------------------------------------------------------


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


# ---- all blocks -----------------------------------------------------------------------------------------------------


@dataclass
class StreamMatrix:
    """a[k][i] of one model and seed: `rows[k][i]` is the metric on block i of the model after block k, i <= k.

    All summaries after block k take `first`, the first block that counts: 0 with the base block, 1 without. They are
    NaN where there is nothing to average, and nothing is rounded.

    Args:
        metric: e.g. "recall@20".
        rows: row k holds k+1 numbers; NaN where a block could not be measured.

    Raises:
        DataError: a row has another length or holds an infinite number.
    """

    metric: str
    rows: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        given, self.rows = self.rows, []
        for row in given:
            self.add(row)

    def __len__(self) -> int:
        """Blocks so far."""
        return len(self.rows)

    def add(self, values: Sequence[float]) -> None:
        """Row k of the next block k: the metric on blocks 0 to k."""
        row = [float(value) for value in values]
        if len(row) != len(self) + 1:
            raise DataError(
                f"after block {len(self)} a model is measured on blocks 0 to {len(self)}, {len(self) + 1} numbers, got "
                f"{len(row)}."
            )
        if any(map(math.isinf, row)):
            raise DataError(f"{self.metric} after block {len(self)} is not finite: {row}. Find out why.")
        self.rows.append(row)

    def la(self, k: int, first: int = 0) -> float:
        """Learning average: the mean of a[i][i] for i from `first` to k."""
        self._check(k, first)
        return _mean([self.rows[i][i] for i in range(first, k + 1)])

    def ra(self, k: int, first: int = 0, current: bool = True) -> float:
        """Retained average: the mean of a[k][i] for i from `first` to k, or to k-1 where `current` is false."""
        self._check(k, first)
        return _mean(self.rows[k][first : k + current])

    def h_mean(self, k: int, first: int = 0, current: bool = True) -> float:
        """Harmonic mean of `la` and `ra`; 0 where both are."""
        la, ra = self.la(k, first), self.ra(k, first, current)
        return 2 * la * ra / (la + ra) if la + ra else 0.0

    def to_json(self) -> str:
        rows = [[None if math.isnan(value) else value for value in row] for row in self.rows]
        return json.dumps({"metric": self.metric, "rows": rows}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> StreamMatrix:
        """Raises DataError: the text is not one of `to_json`."""
        try:
            content = json.loads(text)
            rows = [[math.nan if value is None else value for value in row] for row in content["rows"]]
            return cls(str(content["metric"]), rows)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"this is no stream matrix ({error}). Write it with StreamMatrix.to_json.") from error

    def _check(self, k: int, first: int) -> None:
        if not 0 <= k < len(self) or first < 0:
            raise DataError(
                f"there are blocks 0 to {len(self) - 1}, but block {k} was asked for, counted from {first}."
            )


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


# ---- several seeds and runs -----------------------------------------------------------------------------------------


def over_seeds(values: Sequence[float]) -> Spread | None:
    """Mean and sample standard deviation; None where a seed has no number."""
    return None if any(map(math.isnan, values)) else Spread.of(values)


def matrix_table(seeds: Sequence[StreamMatrix]) -> str:
    """A Markdown table of a[k][i]: a row after each block, a column for each block that is tested.

    Raises:
        DataError: no seed, or seeds of other metrics or blocks.
    """
    blocks = check_runs({"this run": seeds})
    header = [pretty(seeds[0].metric), *(f"D{i}" for i in range(blocks))]
    rows = []
    for k in range(blocks):
        cells = [show(over_seeds([matrix.rows[k][i] for matrix in seeds])) for i in range(k + 1)]
        rows.append([f"after D{k}", *cells, *[""] * (blocks - k - 1)])
    return grid(header, rows) + "\n"


def stream_table(runs: Mapping[str, Sequence[StreamMatrix]], current: bool = True) -> str:
    """Markdown tables of LA, RA and H after each block, with the base block and without it.

    Args:
        runs: by name, a matrix for each seed; mean ± sample standard deviation over them.
        current: whether the retained average counts the block that was just learned.

    Raises:
        DataError: no run or seed, or matrices of other metrics or blocks.
    """
    blocks = check_runs(runs)
    retained = "RA and H count" if current else "RA and H do not count"
    parts = [f"{pretty(_metric(runs))} after each block, {seeds_of(runs)}; {retained} the block that was just learned."]
    for first, told in ((0, "With the base block (B = 0):"), (1, "Without the base block (B = 1):")):
        if first < blocks:
            header = ["run", "", *(f"D{k}" for k in range(first, blocks))]
            rows = [row for name, seeds in runs.items() for row in _summary_rows(line(name), seeds, first, current)]
            parts += [told, grid(header, rows, text_columns=2)]
    return "\n\n".join(parts) + "\n"


def _summary_rows(name: str, seeds: Sequence[StreamMatrix], first: int, current: bool) -> list[list[str]]:
    after = range(first, len(seeds[0]))
    summaries = {
        "LA": [[matrix.la(k, first) for matrix in seeds] for k in after],
        "RA": [[matrix.ra(k, first, current) for matrix in seeds] for k in after],
        "H": [[matrix.h_mean(k, first, current) for matrix in seeds] for k in after],
    }
    return [[name, of, *(show(over_seeds(values)) for values in told)] for of, told in summaries.items()]


def _metric(runs: Mapping[str, Sequence[StreamMatrix]]) -> str:
    return next(iter(runs.values()))[0].metric


def seeds_of(runs: Mapping[str, Sequence[Any]]) -> str:
    """Over how many seeds means are, in words."""
    few, many = min(map(len, runs.values())), max(map(len, runs.values()))
    if many == 1:
        return "one seed, so the spread is not known"
    return f"mean ± standard deviation over {many if few == many else f'{few} to {many}'} seeds"


def check_runs(runs: Mapping[str, Sequence[StreamMatrix]]) -> int:
    """The number of blocks that all matrices have.

    Raises:
        DataError: no run or seed, or matrices of other metrics or blocks.
    """
    if not runs or not all(runs.values()):
        raise DataError(
            f"each run needs the matrix of one seed at least, got { ({n: len(s) for n, s in runs.items()}) }."
        )
    first = next(iter(runs.values()))[0]
    for name, seeds in runs.items():
        for matrix in seeds:
            if (matrix.metric, len(matrix)) != (first.metric, len(first)) or not len(matrix):
                raise DataError(
                    f"{name!r} has {matrix.metric} of {len(matrix)} blocks, another run or seed {first.metric} of "
                    f"{len(first)}. Compare one metric over the same blocks."
                )
    return len(first)


__all__ = ["StreamMatrix", "asks_for_sets", "block_metrics", "check_runs", "matrix_table", "over_seeds", "stream_table"]

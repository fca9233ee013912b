"""Splits: which part of each user's history trains, validates and tests; query ids depend on the split alone.

Leave-one-out leaks the future of other users into training; `temporal` does not (see RecBole #620, recommenders #1675).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict

from ..errors import ConfigError, DataError
from .columns import DOMAIN, INTERACTIONS, ITEM_ID, ITEMS, PARTS, PROTOCOLS, SPLIT
from .histories import Histories, Windows, rows
from .interactions import Source, by_domain, load_interactions, table_of
from .kcore import k_core
from .split import Split, combine

__all__ = [
    "Split",
    "combine",
    "combine_items",
    "k_core",
    "leave_one_out",
    "load_markets",
    "preset",
    "ratio_split",
    "split_by",
    "temporal",
]
logger = logging.getLogger(__name__)
TRAIN, VALID, TEST = range(3)
QUERIES = ("positions", "users")
RATIOS = (0.6, 0.2, 0.2)  # those of the protocol `ratio`


def leave_one_out(market: DatasetDict, *, max_length: int = 50, queries: str = "positions") -> Split:
    """Last interaction of each user tests, the one before validates; users with fewer than 3 only train.

    Args:
        max_length: items of the longest history.
        queries: what training asks, here and in the other protocols: `positions`, what comes after each part of a
            history; or `users`, which items a user wants, whatever their order and however many (for models that know
            users, see `seqkd.batches.pairs`; histories are then whole, and one list per user is all that a teacher
            says).
    """
    log = Histories.of(market)
    position, length = log.position(), log.lengths()[log.user]
    part = np.where(length < 3, TRAIN, np.clip(position - (length - 3), TRAIN, TEST))
    return _cut(log, part, "loo", max_length, queries, {"users_only_in_train": int((log.lengths() < 3).sum())})


def temporal(
    market: DatasetDict,
    *,
    valid_from: int | float = 0.8,
    test_from: int | float = 0.9,
    max_length: int = 50,
    queries: str = "positions",
) -> Split:
    """One point in time for all users: before `valid_from` trains, from `test_from` on tests.

    Args:
        valid_from, test_from: times in the unit of the data (int), or shares of the interactions (float, 0 to 1).

    Raises:
        ConfigError: the two are not in order. DataError: a part would be empty.
    """
    log = Histories.of(market)
    limits = [_point(value, log.time) for value in (valid_from, test_from)]
    if limits[0] > limits[1]:
        raise ConfigError(
            f"valid_from ({valid_from}, time {limits[0]}) lies after test_from ({test_from}, time {limits[1]}). "
            "Swap them."
        )
    part = np.searchsorted(np.array(limits), log.time, side="right")
    for number, name in enumerate(PARTS):
        if not (part == number).any():
            span = f"{log.time.min()} to {log.time.max()}"
            raise DataError(
                f"no interaction falls into {name}: the data covers {span}, valid starts at {limits[0]}, test at "
                f"{limits[1]}. Move the limits."
            )
    return _cut(log, part, "temporal", max_length, queries, {})


def preset(market: DatasetDict, *, max_length: int = 50, queries: str = "positions") -> Split:
    """The split that the data brings in its column `split`; within a user train is before valid, valid before test."""
    if SPLIT not in market[INTERACTIONS].column_names:
        raise DataError(
            f"the interactions have no column 'split', but {market[INTERACTIONS].column_names}. Use leave_one_out, "
            "temporal or ratio_split."
        )
    log = Histories.of(market, by_part=True)
    return _cut(log, log.part, "preset", max_length, queries, {})


def ratio_split(
    market: DatasetDict,
    *,
    ratios: Sequence[float] = RATIOS,
    max_length: int = 50,
    queries: str = "users",
    seed: int = 0,
) -> Split:
    """The interactions of each user fall at random into training, validation and test, whatever their time.

    The protocol of the literature on sets: it leaks the future, of the user himself too, so its numbers compare with
    `loo` and `temporal` in nothing. A repeated interaction counts once, the first time.

    `Split.protocol` is `ratio` for 60/20/20, and names other shares, e.g. `ratio 0.8/0.1/0.1`: their numbers do not
    compare with those of `ratio`, and a `Result` takes the latter only.

    Args:
        ratios: shares of the three parts, 1 together. What is held out is rounded down, `floor(n share)` of a user
            with n items, and the rest trains: below 5 items nothing is held out by a share of 0.2.
        queries: as in `leave_one_out`; evaluate sets with `seqkd.TargetSets`.
        seed: of the draw, which depends on it and on each user's interactions in the order of time.

    Raises:
        ConfigError: the shares are not three, not positive, or not 1 together.
    """
    if len(ratios) != len(PARTS) or min(ratios) <= 0 or not np.isclose(sum(ratios), 1):
        raise ConfigError(f"ratios must be three shares above 0 that are 1 together, got {tuple(ratios)}.")
    log = Histories.of(market)
    _, first = np.unique(log.user * (len(log.catalogue) + 1) + log.item, return_index=True)
    log = log.take(np.sort(first))
    drawn = np.random.default_rng(seed).random(len(log.user))
    place = np.empty(len(log.user), dtype=np.int64)
    place[np.lexsort((drawn, log.user))] = log.position()  # of each interaction in its user's random order
    lengths = log.lengths()
    valid, test = (np.floor(lengths * ratio + 1e-9).astype(np.int64)[log.user] for ratio in ratios[1:])
    length = lengths[log.user]
    part = np.where(place < length - valid - test, TRAIN, np.where(place < length - test, VALID, TEST))
    order = np.lexsort((part, log.user))  # stable: by time within a part
    only_train = int((np.bincount(log.user[part != TRAIN], minlength=len(log.users)) == 0).sum())
    protocol = "ratio" if np.allclose(ratios, RATIOS) else "ratio " + "/".join(f"{share:g}" for share in ratios)
    return _cut(log.take(order), part[order], protocol, max_length, queries, {"users_only_in_train": only_train})


def _point(value: int | float, time: np.ndarray) -> int:
    if isinstance(value, float):
        if not 0 < value < 1:
            raise ConfigError(
                f"a share of the interactions lies between 0 and 1, not {value}. Times are whole numbers."
            )
        return int(np.sort(time)[int(len(time) * value)])
    return value


def split_by(market: DatasetDict, protocol: str, *, max_length: int = 50, queries: str | None = None) -> Split:
    """Split by the name of a protocol: `loo`, `temporal`, `preset`, or `ratio` (60/20/20, with seed 0).

    Args:
        max_length, queries: as in `leave_one_out`; `queries` are by default `users` in `ratio`, else `positions`.

    Raises:
        ConfigError: there is no such protocol. Others as of the protocol's own function.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"there is no protocol {protocol!r}; choose one of {PROTOCOLS}.")
    protocols: dict[str, Callable[..., Split]] = {
        "loo": leave_one_out,
        "temporal": temporal,
        "preset": preset,
        "ratio": ratio_split,
    }
    asked = {} if queries is None else {"queries": queries}
    return protocols[protocol](market, max_length=max_length, **asked)


def load_markets(sources: Source | Sequence[Source], *, min_interactions: int = 0) -> dict[str, DatasetDict]:
    """One market per domain from one source or several, `min_interactions`-core filtered where it is above 1.

    Raises:
        DataError: two sources hold the same domain.
    """
    markets: dict[str, DatasetDict] = {}
    for source in [sources] if isinstance(sources, (str, os.PathLike, Dataset, DatasetDict)) else sources:
        for domain, market in by_domain(load_interactions(source)).items():
            if domain in markets:
                raise DataError(
                    f"{source} and a source before it both hold the domain {domain!r}. Rename one with "
                    "load_interactions(..., domain=...)."
                )
            markets[domain] = k_core(market, min_interactions) if min_interactions > 1 else market
    return markets


def combine_items(markets: Sequence[DatasetDict]) -> Dataset:
    """The item tables one below the other, ids as `domain/id`: row i is item i + 1 of the catalogue of `combine`.

    Columns that not all tables have (features) are left out.
    """
    tables = [table_of(market[ITEMS]) for market in markets]
    shared = [name for name in tables[0].column_names if all(name in table.column_names for table in tables)]
    below = pa.concat_tables([table.select(shared) for table in tables])
    ids = pc.binary_join_element_wise(below[DOMAIN], below[ITEM_ID], "/")
    return Dataset(below.set_column(shared.index(ITEM_ID), ITEM_ID, ids).combine_chunks())


def _cut(
    log: Histories, part: np.ndarray, protocol: str, max_length: int, queries: str, report: dict[str, int]
) -> Split:
    """Rows of the three parts from the part of every interaction, which never falls within a user."""
    if max_length < 1:
        raise ConfigError(f"max_length is {max_length}, but a history needs at least 1 item.")
    if queries not in QUERIES:
        raise ConfigError(f"queries must be one of {QUERIES}, got {queries!r}.")
    if queries == "users":
        max_length = int(log.lengths().max())
    counts = np.stack([np.bincount(log.user[part == number], minlength=len(log.users)) for number in range(len(PARTS))])
    ends = np.cumsum(counts, axis=0)  # (3, users): length of a history up to and with each part
    report = log.report | report
    parts = []
    for number, name in enumerate(PARTS):
        first = np.maximum(ends[number] - counts[number], 1)  # a target needs a history, so the first item is never one
        users = np.flatnonzero(counts[number] if number == TRAIN else ends[number] > first)
        if number == TRAIN and queries == "users":  # one query a user, the tail, to which all items are answers
            first = ends[number]
        # Training windows overlap by half; in evaluation every target gets its full history.
        windows = Windows.cut(
            ends[number][users], first[users], max_length, max(1, max_length // 2) if number == TRAIN else 1
        )
        parts.append(rows(log, users, windows))
        report[f"{name}_rows"] = len(windows.row)
        report[f"{name}_histories_cut"] = int((ends[number][users] > max_length + 1).sum())
        if number != TRAIN:
            report[f"{name}_first_items_without_history"] = int(
                ((counts[number] > 0) & (ends[number] == counts[number])).sum()
            )
    report = {name: count for name, count in report.items() if count}
    logger.info("%s split of %s: %s", protocol, log.domain, report)
    train, valid, test = parts
    return Split(log.catalogue, train, valid, test, protocol, log.domain, report)

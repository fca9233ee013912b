"""Streams from logs: a log cut by time into blocks, and one more block from what came since.

The random split leaks the future within a block, the temporal one does not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict

from ..catalogue import Catalogue
from ..errors import ConfigError, DataError
from .columns import DOMAIN, INTERACTIONS, ITEM_ID, ITEMS, TIMESTAMP, USER_ID
from .interactions import table_of
from .stream import DROPPED, ITEM, PART, TRAIN, USER, Block, check_stream
from .stream_parts import random_parts, temporal_parts
from .stream_rows import block_of

logger = logging.getLogger(__name__)
SPLITS = ("temporal", "random")
PERIODS = ("day", "week", "month")
BLOCKS = 5  # of the paper's streams
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # of times, per second
NEVER = np.iinfo(np.int64).min  # the end of a stream without times
FROM, TO = 10**8, 7 * 10**9  # seconds since 1970 that can be the time of an interaction: 1973 to 2191


def cut_stream(
    market: DatasetDict,
    *,
    blocks: int | None = None,
    period: str | None = None,
    base: float = 0.5,
    split: str = "temporal",
    queries: str = "users",
    max_length: int = 50,
    held_out: float = 0.1,
    seed: int = 0,
) -> list[Block]:
    """Cut a log by time: a base, block 0, then blocks of equal size or of one calendar period each.

    Args:
        market: one domain, as `load_interactions` gives it.
        blocks: how many equal numbers of interactions follow the base; 5 if no period is given. Interactions of one
            moment are never cut apart, so blocks are a little unequal where times are tied.
        period: `day`, `week` (from Monday) or `month`, in UTC; periods without interactions make no block.
        base: share of the interactions that comes first; with `period`, up to the end of the period it ends in.
        split, queries, max_length, held_out, seed: as of `next_block`.

    Returns:
        Block 0 and those after it.

    Raises:
        ConfigError: a setting does not exist or lies outside its range.
        DataError: there are no times, or a block would be empty or would ask nothing.
    """
    if not 0 < base < 1:
        raise ConfigError(f"base is the share of the interactions in block 0, between 0 and 1, got {base}.")
    if blocks is not None and period is not None:
        raise ConfigError(f"blocks={blocks} and period={period!r} are both given. Cut by one of the two.")
    if blocks is not None and blocks < 1:
        raise ConfigError(f"blocks is {blocks}, but after the base there must be at least 1.")
    if period not in (None, *PERIODS):
        raise ConfigError(f"period must be one of {PERIODS}, got {period!r}.")
    table = _in_order(market)
    time = table[TIMESTAMP].to_numpy()
    starts = (
        _equal(time, base, BLOCKS if blocks is None else blocks) if period is None else _calendar(time, base, period)
    )
    stream: list[Block] = []
    for start, stop in zip([0, *starts], [*starts, len(time)], strict=True):
        log = table.slice(start, stop - start)
        block = _next(stream, log, split, queries, max_length, held_out, seed)
        stream.append(_with_items(block, market))
    return stream


def next_block(
    earlier: Sequence[Block],
    market: DatasetDict,
    *,
    split: str = "temporal",
    queries: str = "users",
    max_length: int = 50,
    held_out: float = 0.1,
    seed: int = 0,
) -> Block:
    """One more block from what came since: the ids of `earlier[-1]` stay, new ones follow.

    An export of the whole log may be given, too: what does not lie after the end of the stream, and is of a user and
    an item that an earlier block holds together, was fed before. It is left out with a warning (`fed_before` in the
    report). Other interactions before the end came late, and stay (`late_interactions`).

    Args:
        earlier: all blocks so far, in order; none begins a stream.
        market: the new interactions, one domain, as `load_interactions` gives them, and what its item table tells
            about new items.
        split: `temporal`, one point in time per block; or `random`, the paper's (see `stream_parts`).
        queries: `users`, what does a user want, whatever the order (MF, LightGCN): a repeated interaction counts once,
            the first time; or `positions`, what comes next in a history over all blocks (SASRec). What is dropped is
            not asked for here, but is history of later blocks. The random split then puts what a user trains on before
            what he is asked, whatever the time.
        max_length: items of the longest history; with `queries="users"` they are whole.
        held_out: share of a block that tests, and that validates.
        seed: of the random draw, which depends on it and on the block's number.

    Raises:
        ConfigError: a setting does not exist or lies outside its range.
        DataError: `earlier` is no stream, or of another domain or split; the log is empty, has nothing new after the
            end of the stream, has no times, or leaves nothing to train or to ask; or a new item has no row in the item
            table.
    """
    check_stream(earlier)
    return _with_items(_next(earlier, _in_order(market), split, queries, max_length, held_out, seed), market)


def _next(
    earlier: Sequence[Block], table: pa.Table, split: str, queries: str, max_length: int, held_out: float, seed: int
) -> Block:
    if split not in SPLITS:
        raise ConfigError(f"split must be one of {SPLITS}, got {split!r}.")
    if not 0 < held_out < 0.5:
        raise ConfigError(f"held_out is the share that tests and that validates, between 0 and 0.5, got {held_out}.")
    domain, protocol = table[DOMAIN][0].as_py(), f"stream-{split}-{queries}"
    if earlier and (earlier[-1].domain, earlier[-1].protocol) != (domain, protocol):
        raise DataError(
            f"the new log is of {domain!r}, to be split as {protocol}, but the stream is of {earlier[-1].domain!r}, "
            f"{earlier[-1].protocol}. Go on with the settings that it began with."
        )
    everyone, user = _grown(earlier[-1].users if earlier else Catalogue([]), table[USER_ID])
    catalogue, item = _grown(earlier[-1].catalogue if earlier else Catalogue([]), table[ITEM_ID])
    time = table[TIMESTAMP].to_numpy()
    end, since = _since(earlier, user, item, time, queries)
    user, item, time = (values[since] for values in (user, item, time))
    once = _once(user, item)
    by_user = np.argsort(user, kind="stable")
    report = {
        "fed_before": int((~since).sum()),
        "repeated_interactions": len(user) - len(once),
        "tied_timestamps": int(((np.diff(user[by_user]) == 0) & (np.diff(time[by_user]) == 0)).sum()),
    }
    if queries == "users":
        user, item, time = (values[once] for values in (user, item, time))
    report["late_interactions"] = int((time < end).sum())
    trained = np.zeros(len(catalogue) + 1, dtype=bool)
    if (split, queries) != ("random", "users"):  # the paper's own counts what this block trains on, and nothing else
        for block in earlier:
            trained[block.pairs("train")[1]] = True
    if split == "random":
        draw = np.random.default_rng([seed, len(earlier)]).random(len(user))
        part = random_parts(user, item, draw, trained, held_out)
    else:
        part = temporal_parts(time, item, trained, held_out)
    trained[item[part == TRAIN]] = True
    dropped = part == DROPPED
    report["dropped_since_nobody_trains_on_them"] = int((dropped & ~trained[item]).sum())
    report["dropped_with_their_user"] = int((dropped & trained[item]).sum())
    log = {USER: user, ITEM: item, PART: part, TIMESTAMP: time}
    return block_of(
        earlier, log, catalogue, everyone,
        split=split, queries=queries, domain=domain, max_length=max_length, report=report,
    )  # fmt: skip


def _with_items(block: Block, market: DatasetDict) -> Block:
    """With the rows of the market's item table, where it has one, about what is new in the block."""
    if ITEMS not in market:
        return block
    table, new = table_of(market[ITEMS]).combine_chunks(), block.catalogue.item_ids[block.known_items :]
    at = pc.index_in(pa.array(new, pa.string()), value_set=table[ITEM_ID].combine_chunks())
    if at.null_count:
        missing = [new[row] for row in np.flatnonzero(at.is_null().to_numpy(False))[:5]]
        raise DataError(
            f"{at.null_count} of {len(at)} new items of block {block.number} have no row in the item table, first "
            f"{missing}. Add their rows, or make the market with load_interactions, which leaves their texts empty."
        )
    return replace(block, items=Dataset(table.take(at).combine_chunks()))


def _since(
    earlier: Sequence[Block], user: np.ndarray, item: np.ndarray, time: np.ndarray, queries: str
) -> tuple[int, np.ndarray]:
    """The end of the earlier blocks, and which interactions `(N,)` were not fed before; without times all are new.

    Raises:
        DataError: none of them lies behind the end; of the last moment alone there may be more.
    """
    end = max((int(block.columns[TIMESTAMP].max()) for block in earlier if TIMESTAMP in block.columns), default=NEVER)
    past = [(block.columns[USER], block.columns[ITEM]) for block in earlier]
    held = np.concatenate([_pairs(*columns) for columns in past] or [np.array([], np.int64)])
    since = (time > end) | ~np.isin(_pairs(user, item), held)
    first = _once(user, item) if queries == "users" else slice(None)  # a repeat is no news in a set
    news = time[first][since[first]]
    if not len(news) or ((news < end).any() and news.max() <= end):
        raise DataError(
            f"the new log covers {time.min()} to {time.max()}, but nothing in it that is new lies after the end of the "
            f"stream ({end}). Give what came after it; was this log fed already?"
        )
    if not since.all():
        logger.warning(
            "%d of %d interactions of the new log were fed before and are left out: they do not lie after the end of "
            "the stream (%d), and an earlier block holds their user and item. Give only what came since.",
            (~since).sum(), len(since), end,
        )  # fmt: skip
    return end, since


def _pairs(user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """One number `(N,)` for each pair of internal ids, whatever the size of the catalogue."""
    return user.astype(np.int64) << 32 | item


def _once(user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Where each pair comes first, ascending."""
    return np.sort(np.unique(_pairs(user, item), return_index=True)[1])


def _in_order(market: DatasetDict) -> pa.Table:
    """The interactions by time, ties in the order of the input."""
    if INTERACTIONS not in market or TIMESTAMP not in market[INTERACTIONS].column_names:
        found = market[INTERACTIONS].column_names if INTERACTIONS in market else list(market)
        raise DataError(f"a stream is cut by time, but there is no 'timestamp' among {found}. Use load_interactions.")
    table = table_of(market[INTERACTIONS]).combine_chunks()
    if not table.num_rows:
        raise DataError("the log holds no interactions, so there is no block. Wait for some.")
    domains = pc.unique(table[DOMAIN]).to_pylist()
    if len(domains) != 1:
        raise DataError(f"a stream is of one domain, but the market has {domains}. Cut each of by_domain(market).")
    time = table[TIMESTAMP].to_numpy()
    _refuse_places(pc.dictionary_encode(table[USER_ID]).combine_chunks().indices.to_numpy(), time)
    return table.take(pa.array(np.argsort(time, kind="stable"))).combine_chunks()


def _refuse_places(user: np.ndarray, time: np.ndarray) -> None:
    """Refuse `0, 1, 2, ...` of every user: cut by such times, all users would begin together."""
    order = np.lexsort((time, user))
    user, time = user[order], time[order]
    same = np.diff(user) == 0
    begins = time[np.concatenate([[True], ~same])]
    if len(begins) > 1 and same.any() and (begins == begins[0]).all() and (np.diff(time)[same] == 1).all():
        raise DataError(
            f"the timestamps of each user count {begins[0]}, {begins[0] + 1}, ...: they are places in his history and "
            "no times, so nothing tells what came first among users. Take the log with its real times."
        )


def _grown(known: Catalogue, column: pa.ChunkedArray) -> tuple[Catalogue, np.ndarray]:
    """The ids with those that are new, in order of first appearance; and the column in internal ids."""
    codes = pc.dictionary_encode(column).combine_chunks()
    names = codes.dictionary.to_pylist()
    grown = known.extend(name for name in names if name not in known)
    return grown, grown.encode(names)[codes.indices.to_numpy()]


def _equal(time: np.ndarray, base: float, blocks: int) -> list[int]:
    """Where `blocks` equal blocks begin in sorted times; interactions of one moment go together, to the later."""
    first = int(len(time) * base + 1e-9)
    begin = first + (len(time) - first) * np.arange(blocks) // blocks
    starts = np.searchsorted(time, time[np.minimum(begin, len(time) - 1)], side="left")
    sizes = np.diff([0, *starts, len(time)])
    if not sizes.all():
        empty = int(np.flatnonzero(sizes == 0)[0])
        raise DataError(
            f"block {empty} of {blocks + 1} would be empty: {len(time)} interactions lie at {len(np.unique(time))} "
            "different times, and those of one moment are not cut apart. Take fewer blocks or another base."
        )
    return starts.tolist()


def _calendar(time: np.ndarray, base: float, period: str) -> list[int]:
    """Where the periods begin that follow the one in which the base is complete."""
    units = [unit for unit, per in UNITS.items() if FROM * per <= time[0] and time[-1] <= TO * per]
    if not units:
        raise DataError(
            f"times from {time[0]} to {time[-1]} are no dates in any of {list(UNITS)} since 1970, so there are no "
            "calendar periods. Cut by number: blocks=5."
        )
    days = time // (86_400 * UNITS[units[0]])
    if period == "day":
        number = days
    elif period == "week":
        number = (days + 3) // 7  # 1970 began on a Thursday
    else:
        number = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    last = number[max(int(np.ceil(len(time) * base - 1e-9)) - 1, 0)]
    starts = np.flatnonzero(np.diff(number) & (number[1:] > last)) + 1
    if not len(starts):
        raise DataError(f"no {period} follows the base of {base}. Take a smaller base, shorter periods, or blocks=5.")
    return starts.tolist()

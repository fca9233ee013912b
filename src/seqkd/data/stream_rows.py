"""From the interactions of a block, each in its part, to the block: rows that train and rows that ask."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ..catalogue import Catalogue
from ..errors import ConfigError, DataError
from .columns import PARTS, TIMESTAMP
from .histories import Histories, Windows, rows
from .interactions import table_of
from .split import FIRST_TARGET, ITEM_IDS, QUERY_START
from .stream import DROPPED, ITEM, PART, TEST, TRAIN, USER, VALID, Block, check_stream

logger = logging.getLogger(__name__)
EARLIER = -2  # the part of what earlier blocks tell
NOTHING = -3
# What the rows of a part hold, in this order: before the first target, and as targets.
LAYOUT = {
    "users": {
        TRAIN: ((TRAIN,), NOTHING),
        VALID: ((TRAIN, TEST), VALID),
        TEST: ((TRAIN, VALID), TEST),
    },
    "positions": {
        TRAIN: ((EARLIER,), TRAIN),
        VALID: ((EARLIER, TRAIN), VALID),
        TEST: ((EARLIER, TRAIN, VALID), TEST),
    },
}


def block_of(
    earlier: Sequence[Block],
    log: dict[str, np.ndarray],
    catalogue: Catalogue,
    everyone: Catalogue,
    *,
    split: str,
    queries: str,
    domain: str,
    max_length: int,
    report: dict[str, int],
) -> Block:
    """The next block of a stream.

    Args:
        log: `user`, `item` (internal ids of `everyone` and `catalogue`), `part` and perhaps `timestamp`, `(N,)` each,
            oldest first.
        split: name of the rule that the parts are of.

    Raises:
        ConfigError: a setting does not exist. DataError: nothing trains, or nothing is asked.
    """
    if queries not in LAYOUT:
        raise ConfigError(f"queries must be one of {tuple(LAYOUT)}, got {queries!r}.")
    if max_length < 1:
        raise ConfigError(f"max_length is {max_length}, but a history needs at least 1 item.")
    known_users, known_items = (len(earlier[-1].users), len(earlier[-1].catalogue)) if earlier else (0, 0)
    user, part = log[USER], log[PART]
    report = {
        "users": len(np.unique(user)),
        "items": len(np.unique(log[ITEM])),
        "new_users": len(everyone) - known_users,
        "new_items": len(catalogue) - known_items,
        "interactions": len(part),
        "dropped_interactions": int((part == DROPPED).sum()),
        "asked_users_without_train": len(np.setdiff1d(user[part > TRAIN], user[part == TRAIN])),
    } | report
    past = [block.columns for block in earlier] if queries == "positions" else []
    histories = _histories(past, log, catalogue, everyone, domain)
    made = []
    for place, name in enumerate(PARTS):
        dataset, told = _rows(histories, place, queries, max_length)
        if not len(dataset):
            raise DataError(
                f"block {len(earlier)} has no row in {name}: it has {len(part)} interactions of {report['users']} "
                f"users, of which the split {split!r} drops {report['dropped_interactions']} and leaves "
                f"{int((part == place).sum())} for {name}. Make blocks longer, or wait for more data."
            )
        made.append(dataset)
        report |= {f"{name}_{what}": count for what, count in told.items()}
    train, valid, test = made
    report = {what: count for what, count in report.items() if count}
    logger.info("block %d of %s: %s", len(earlier), domain, report)
    return Block(
        catalogue, train, valid, test, f"stream-{split}-{queries}", domain, report,
        everyone, len(earlier), known_items, known_users, _as_dataset(log),
    )  # fmt: skip


def whole(blocks: Sequence[Block], *, keep: float = 1.0, seed: int = 0, max_length: int = 50) -> Block:
    """The last block with the training of all: what a model is retrained on from scratch, or a buffer of the past.

    What earlier blocks held out stays held out, so that they can still be tested. Validation, test, ids and number are
    those of the last block.

    Of sets (`queries="users"`), `keep` is the share of the earlier training interactions that a user's row holds beside
    those of the last block. Of histories, rows of the last block stay as they are, old items as their context, and
    behind them comes a share of the training rows of earlier blocks, each as it was; the log is the last block's alone.
    With all kept, histories are made anew of what was trained on, and nothing held out is in them, not even as context.

    Args:
        keep: share of the training of earlier blocks that is kept, drawn at random by `seed`.
        max_length: of histories, as the blocks were made with.

    Raises:
        ConfigError: `keep` is no share. DataError: the blocks are none of a stream, or do not follow each other from 0
            on.
    """
    check_stream(blocks)
    if not 0 <= keep <= 1:
        raise ConfigError(f"keep is a share from 0 to 1, got {keep}.")
    if not blocks or blocks[-1].queries not in LAYOUT:
        raise DataError("no block, or one that no stream made. Give blocks of cut_stream, next_block or read_ccd.")
    last = blocks[-1]
    # not default_rng(seed), which draws as [seed, 0] does: by these numbers block 0 was split
    draw = np.random.default_rng([seed, 0, 1])
    if last.queries == "positions" and keep < 1:
        return replace(last, train=_with_earlier_rows(blocks, keep, draw))
    log = {name: np.concatenate([block.columns[name] for block in blocks]) for name in (USER, ITEM, PART)}
    old = np.arange(len(log[PART])) < len(log[PART]) - len(last.log)
    log[PART] = np.where(old & ~((draw.random(len(old)) < keep) & (log[PART] == TRAIN)), DROPPED, log[PART])
    train, _ = _rows(_histories([], log, last.catalogue, last.users, last.domain), TRAIN, last.queries, max_length)
    return replace(last, train=train, log=_as_dataset(log))


def _with_earlier_rows(blocks: Sequence[Block], keep: float, draw: np.random.Generator) -> Dataset:
    """The training rows of the last block, and behind them a share of those of earlier ones, numbered on."""
    *earlier, last = (table_of(block.train) for block in blocks)
    table = pa.concat_tables([last, *earlier]).combine_chunks()
    kept = draw.random(len(table)) < keep
    kept[: len(last)] = True
    table = table.filter(pa.array(kept))
    queries = pc.list_value_length(table[ITEM_IDS]).to_numpy() - table[FIRST_TARGET].to_numpy() + 1
    start = pa.array(np.cumsum(queries) - queries, pa.int64())
    return Dataset(table.set_column(table.column_names.index(QUERY_START), QUERY_START, start).combine_chunks())


def _histories(
    past: Sequence[dict[str, np.ndarray]],
    log: dict[str, np.ndarray],
    catalogue: Catalogue,
    everyone: Catalogue,
    domain: str,
) -> Histories:
    """The interactions of past blocks and of this one, in order of time."""
    user, item = (
        np.concatenate([*(block[name] for block in past), log[name]]).astype(np.int64) for name in (USER, ITEM)
    )
    part = np.concatenate([np.full(len(user) - len(log[PART]), EARLIER), log[PART]])
    return Histories(list(everyone.item_ids), user - 1, item, np.arange(len(user)), part, catalogue, domain, {})


def _rows(histories: Histories, place: int, queries: str, max_length: int) -> tuple[Dataset, dict[str, int]]:
    """The rows of one part, and what there is to count."""
    head, asked = LAYOUT[queries][place]
    order = np.full(len(PARTS) - NOTHING, -1)  # of every part, the negative ones from the end; -1 is left out
    order[list(head)] = np.arange(len(head))
    order[asked] = len(head)
    rank = order[histories.part]
    chosen = np.flatnonzero(rank >= 0)
    chosen = chosen[np.lexsort((rank[chosen], histories.user[chosen]))]  # stable: by time within a part
    told = histories.take(chosen)
    lengths = told.lengths()
    first = np.bincount(told.user[told.part != asked], minlength=len(lengths))
    count = {}
    if queries == "users":
        max_length = max(int(lengths.max(initial=0)), 1)  # sets are whole
        users = np.flatnonzero(lengths if place == TRAIN else lengths > first)
    else:
        fresh = lengths > first  # who has something of this part
        first = np.maximum(first, 1)  # a target needs a history
        users = np.flatnonzero(fresh if place == TRAIN else lengths > first)
        count["histories_cut"] = int((lengths[users] > max_length + 1).sum())
        if place != TRAIN:
            count["first_items_without_history"] = int((told.position()[told.part == asked] == 0).sum())
    # Training windows overlap by half; in evaluation every target gets its full history.
    stride = max(1, max_length // 2) if place == TRAIN else 1
    windows = Windows.cut(lengths[users], first[users], max_length, stride)
    return rows(told, users, windows), {"rows": len(windows.row)} | count


def _as_dataset(log: dict[str, np.ndarray]) -> Dataset:
    kinds = {USER: pa.int32(), ITEM: pa.int32(), PART: pa.int8(), TIMESTAMP: pa.int64()}
    return Dataset(pa.table({name: pa.array(values, kinds[name]) for name, values in log.items()}))

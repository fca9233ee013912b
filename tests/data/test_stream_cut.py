"""Blocks cut by hand, and against a slow loop over the log."""

from __future__ import annotations

import datetime
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from seqkd.batches.collators import QueryCollator, SequenceDataset
from seqkd.data.interactions import load_interactions, table_of
from seqkd.data.stream import Block
from seqkd.data.stream_cut import cut_stream, next_block
from seqkd.data.stream_rows import whole
from seqkd.errors import ConfigError, DataError

BASE = [("u", "a", 1), ("v", "b", 2), ("w", "c", 3), ("u", "b", 4), ("v", "c", 5)]
MORE = [("x", "d", 6), ("u", "d", 7), ("v", "e", 8), ("w", "a", 9), ("u", "e", 10)]
HAND = {"blocks": 1, "held_out": 0.2}  # of five interactions three train, one validates, one tests


def market(events: list[tuple[str, str, int]], domain: str = "shop") -> DatasetDict:
    users, items, times = zip(*events, strict=True)
    return load_interactions(Dataset(pa.table({"user_id": users, "item_id": items, "timestamp": times})), domain=domain)


def random_market(seed: int = 0, events: int = 600, users: int = 25, items: int = 40, span: int = 10_000):
    draw = np.random.default_rng(seed)
    columns = zip(*(draw.integers(0, top, events) for top in (users, items, span)), strict=True)
    return [(f"u{user}", f"i{item}", int(time)) for user, item, time in columns]


def rows(part: Dataset) -> list[tuple]:
    return [(row["user_id"], row["item_ids"], row["first_target"], row["query_start"]) for row in part]


# ---- by hand --------------------------------------------------------------------------------------------------------


def test_histories_go_on_over_blocks():
    base, block = cut_stream(market(BASE + MORE), queries="positions", **HAND)
    assert rows(base.train) == [("u", [1], 1, 0), ("v", [2], 1, 1), ("w", [3], 1, 2)]
    assert rows(base.valid) == [("u", [1, 2], 1, 0)]
    assert rows(base.test) == [("v", [2, 3], 1, 0)]
    assert (base.number, base.known_users, base.known_items, base.users.item_ids) == (0, 0, 0, ("u", "v", "w"))
    assert rows(block.train) == [("u", [1, 2, 4], 2, 0), ("v", [2, 3, 5], 2, 2), ("x", [4], 1, 4)]
    assert rows(block.valid) == [("w", [3, 1], 1, 0)]  # a is of the block before
    assert rows(block.test) == [("u", [1, 2, 4, 5], 3, 0)]
    assert block.catalogue.item_ids == ("a", "b", "c", "d", "e") and block.users.item_ids == ("u", "v", "w", "x")
    assert (block.number, block.known_users, block.known_items) == (1, 3, 3)
    assert (block.protocol, block.queries, block.domain) == ("stream-temporal-positions", "positions", "shop")
    assert block.report == {
        "users": 4,
        "items": 3,
        "new_users": 1,
        "new_items": 2,
        "interactions": 5,
        "asked_users_without_train": 1,
        "train_rows": 3,
        "valid_rows": 1,
        "test_rows": 1,
    }


def test_sets_are_of_their_block_and_mask_what_else_it_holds():
    base, block = cut_stream(market(BASE + MORE), queries="users", **HAND)
    assert rows(base.train) == [("u", [1], 1, 0), ("v", [2], 1, 1), ("w", [3], 1, 2)]
    assert rows(base.valid) == [("u", [1, 2], 1, 0)]
    assert rows(block.train) == [("u", [4], 1, 0), ("v", [5], 1, 1), ("x", [4], 1, 2)]
    assert rows(block.valid) == [("w", [1], 0, 0)]  # known, but here for the first time since
    assert rows(block.test) == [("u", [4, 5], 1, 0)]
    users, items = block.pairs("train")
    assert (users.tolist(), items.tolist()) == ([4, 1, 2], [4, 4, 5])  # by time


def test_validation_masks_the_test_and_the_test_masks_validation():
    """Four users with the same ten items: what one is asked for others train on."""
    events = [(user, f"i{item}", item) for user in "uvwx" for item in range(10)]
    events += [(user, item, time + 100) for user, item, time in events]
    block = cut_stream(market(events), queries="users", split="random", blocks=1)[1]
    assert block.valid["user_id"][:] == block.test["user_id"][:] == list("uvwx")
    for valid, test in zip(block.valid, block.test, strict=True):
        train = next(row["item_ids"] for row in block.train if row["user_id"] == valid["user_id"])
        (asked,), (tested,) = valid["item_ids"][valid["first_target"] :], test["item_ids"][test["first_target"] :]
        assert valid["item_ids"] == [*train, tested, asked] and test["item_ids"] == [*train, asked, tested]
        assert sorted([*train, asked, tested]) == sorted(block.catalogue.encode([f"i{item}" for item in range(10)]))


def test_what_nobody_trained_on_is_not_asked_for_but_remembered():
    base = next_block([], market(BASE), queries="positions", held_out=0.2)
    log = [*MORE[:4], ("u", "z", 10), ("w", "e", 11)]  # three train, one validates, two test; nobody trains on z
    block = next_block([base], market(log), queries="positions", held_out=0.25)
    assert block.report["dropped_since_nobody_trains_on_them"] == block.report["dropped_interactions"] == 1
    assert block.log["part"][:] == [0, 0, 0, 1, -1, 2] and rows(block.test) == [("w", [3, 1, 5], 2, 0)]
    assert block.catalogue.item_ids == tuple("abcdez")  # named, so numbered
    later = [("u", "a", 12), ("v", "a", 13), ("w", "b", 14), ("x", "b", 15), ("v", "c", 16)]
    last = next_block([base, block], market(later), queries="positions", held_out=0.2)
    assert rows(last.train) == [
        ("u", [1, 2, 4, 6, 1], 4, 0),
        ("v", [2, 3, 5, 1], 3, 2),
        ("w", [3, 1, 5, 2], 3, 4),  # what validated and tested is history by now
    ]
    assert rows(last.valid) == [("x", [4, 2], 1, 0)] and rows(last.test) == [("v", [2, 3, 5, 1, 3], 4, 0)]


def test_a_repeated_interaction_counts_once_in_a_set():
    events = [("u", "a", 1), ("v", "b", 2), ("u", "a", 3), ("w", "a", 4), ("v", "a", 5), ("u", "b", 6), ("v", "a", 7)]
    block = next_block([], market(events), queries="users", held_out=0.2)
    assert rows(block.train) == [("u", [1], 1, 0), ("v", [2], 1, 1), ("w", [1], 1, 2)]
    assert rows(block.valid) == [("v", [2, 1], 1, 0)] and rows(block.test) == [("u", [1, 2], 1, 0)]
    assert block.report["repeated_interactions"] == 2 and len(block.log) == 5
    block = next_block([], market(events), queries="positions", held_out=0.2)
    assert rows(block.train)[0] == ("u", [1, 1], 1, 0)
    assert rows(block.test) == [("u", [1, 1, 2], 2, 0), ("v", [2, 1, 1], 2, 2)]
    assert block.report["repeated_interactions"] == 2 and len(block.log) == 7


def test_ties_are_counted_and_never_cut_apart():
    events = [("u", item, 7) for item in "abc"] + [("v", item, 8) for item in "abc"] + [("u", "b", 9), ("v", "b", 9)]
    events += [(user, item, time + 10) for user, item, time in events]
    stream = cut_stream(market(events), blocks=1, base=0.6, held_out=0.25, queries="positions")
    assert [len(block.log) for block in stream] == [8, 8]  # 9.6 of 16 would cut the three of time 17 apart
    assert [block.report["tied_timestamps"] for block in stream] == [4, 4]
    assert rows(stream[0].valid) == [("v", [1, 2, 3], 1, 0)] and stream[0].report["valid_first_items_without_history"]
    with pytest.raises(DataError, match="block 1 of 6 would be empty: 16 interactions lie at 6 different times"):
        cut_stream(market(events), blocks=5)


# ---- against a slow loop --------------------------------------------------------------------------------------------


def asked(block: Block, part: str) -> dict[int, tuple]:
    """Every labelled query: (user, history, target)."""
    found, catalogue = {}, block.catalogue
    for row in block.part(part):
        names = catalogue.decode(row["item_ids"])
        for position in range(row["first_target"], len(names)):
            query = row["query_start"] + position - row["first_target"]
            assert query not in found
            found[query] = (row["user_id"], tuple(names[:position]), names[position])
    return found


def test_temporal_histories_equal_a_slow_loop():
    events = sorted(random_market(), key=lambda event: event[2])
    stream = cut_stream(market(events), queries="positions", blocks=3, max_length=1000)
    had: dict[str, list[str]] = {}
    trained: set[str] = set()
    bounds = [0, 300, 400, 500, 600]
    for number, block in enumerate(stream):
        log = events[bounds[number] : bounds[number + 1]]
        limits = log[int(len(log) * 0.8)][2], log[int(len(log) * 0.9)][2]
        parts = [sum(time >= limit for limit in limits) for _, _, time in log]
        trained |= {item for (_, item, _), part in zip(log, parts, strict=True) if part == 0}
        here = {user: list(items) for user, items in had.items()}
        for place, name in enumerate(("train", "valid", "test")):
            expected = []
            for (user, item, _), part in zip(log, parts, strict=True):
                if part == place and item in trained:
                    if here.get(user):
                        expected.append((user, tuple(here[user]), item))
                    here.setdefault(user, []).append(item)
            assert sorted(asked(block, name).values()) == sorted(expected), (number, name)
        for user, item, _ in log:
            had.setdefault(user, []).append(item)
    assert not any(block.report.get("late_interactions") for block in stream)


@pytest.mark.parametrize("split", ["random", "temporal"])
def test_long_histories_are_cut_and_every_target_asked_once(split):
    settings = {"queries": "positions", "blocks": 3, "split": split}
    events = random_market(1, events=900)
    long, short = (cut_stream(market(events), max_length=length, **settings) for length in (10_000, 6))
    for whole_, cut in zip(long, short, strict=True):
        for part in ("train", "valid", "test"):
            queries = list(asked(cut, part).values())
            known = list(asked(whole_, part).values())
            assert len(queries) == len(known)
            for (user, history, target), (user_, history_, target_) in zip(queries, known, strict=True):
                assert (user, target) == (user_, target_) and history == history_[len(history_) - len(history) :]
                assert len(history) >= (3 if part == "train" else min(6, len(history_))) or history == history_
            ids = [query for row in cut.part(part) for query in range(*_queries(row))]
            assert ids == list(range(len(ids)))
            sequences = SequenceDataset(cut.part(part), len(cut.catalogue))
            batch = QueryCollator(6)(list(sequences))
            assert len(batch["query_ids"]) == len(queries) == len(batch["query_ids"].unique())
        assert cut.report["test_histories_cut"]


def _queries(row) -> tuple[int, int]:
    return row["query_start"], row["query_start"] + len(row["item_ids"]) - row["first_target"] + 1


def test_what_the_random_split_asks_for_was_trained_on():
    """For sets in the same block, as in the paper; where histories go on over blocks, in any so far."""
    events = random_market(4, events=900, items=100)
    for queries in ("users", "positions"):
        before, unheard = np.zeros(101, dtype=bool), 0
        for block in cut_stream(market(events), split="random", queries=queries, blocks=3):
            here, items = block.pairs("train")[1], block.pairs("test")[1]
            before[here] = True
            assert before[items].all()
            unheard += int((~np.isin(items, here)).sum())
        assert (unheard > 0) == (queries == "positions")


def test_training_is_never_later_than_what_is_asked():
    for block in cut_stream(market(random_market(2)), queries="users", blocks=3):
        time, part = block.columns["timestamp"], block.columns["part"]
        assert time[part == 0].max() < time[part == 1].min() <= time[part == 1].max() < time[part == 2].min()


@pytest.mark.parametrize(("split", "queries"), [("random", "users"), ("temporal", "positions")])
def test_a_stream_goes_on_in_a_fresh_process(split, queries, tmp_path):
    """Block by block from what is on the disk, or all at once: the same."""
    events = sorted(random_market(3), key=lambda event: event[2])
    settings = {"split": split, "queries": queries, "seed": 5, "max_length": 20}
    stream = cut_stream(market(events), blocks=3, **settings)
    for number, log in enumerate((events[:300], events[300:400], events[400:500], events[500:])):
        known = [Block.load(tmp_path / str(before)) for before in range(number)]
        block = next_block(known, market(log), **settings)
        block.save(tmp_path / str(number))
        assert block.fingerprint == stream[number].fingerprint and block.report == stream[number].report
        assert block.train.to_list() == stream[number].train.to_list()
    if split == "random":
        other = cut_stream(market(events), blocks=3, **settings | {"seed": 6})
        assert other[1].fingerprint != stream[1].fingerprint and other[1].users == stream[1].users


# ---- calendar -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [1, 1000, 10**6, 10**9])
def test_calendar_periods(unit):
    """Twelve interactions a day from Wednesday, 29 January 2020, for six days."""
    start = int(datetime.datetime(2020, 1, 29, tzinfo=datetime.timezone.utc).timestamp())
    events = [
        (f"u{hour % 4}", f"i{(hour + day) % 5}", (start + day * 86_400 + hour * 7_200) * unit)
        for day in range(6)
        for hour in range(12)
    ]
    for period, base, sizes in (
        ("day", 0.1, [12] * 6),
        ("day", 1 / 6, [12] * 6),
        ("day", 0.17, [24, 12, 12, 12, 12]),  # 12.24 of 72: the second day completes the base
        ("week", 0.1, [60, 12]),  # Monday is the sixth day
        ("month", 0.1, [36, 36]),  # February is the fourth
    ):
        stream = cut_stream(market(events), period=period, base=base)
        assert [len(block.log) + block.report.get("repeated_interactions", 0) for block in stream] == sizes, period
    with pytest.raises(DataError, match=r"no month follows the base of 0\.9"):
        cut_stream(market(events), period="month", base=0.9)


def test_times_without_dates_have_no_periods():
    with pytest.raises(DataError, match="from 1 to 10 are no dates"):
        cut_stream(market(BASE + MORE), period="day")


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base": 0.0}, "base is the share"),
        ({"base": 1.0}, "base is the share"),
        ({"blocks": 0}, "blocks is 0"),
        ({"period": "year"}, "'day', 'week', 'month'"),
        ({"period": "day", "blocks": 2}, "both given"),
        ({"split": "loo"}, "'temporal', 'random'"),
        ({"queries": "sets"}, "'users', 'positions'"),
        ({"max_length": 0}, "max_length is 0"),
        ({"held_out": 0.5}, "between 0 and 0.5"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        cut_stream(market(BASE + MORE), **settings)


def test_logs_that_are_none():
    log = market(BASE)
    with pytest.raises(DataError, match="no 'timestamp' among"):
        next_block([], DatasetDict(log | {"interactions": log["interactions"].remove_columns("timestamp")}))
    with pytest.raises(DataError, match="holds no interactions"):
        next_block([], DatasetDict(log | {"interactions": log["interactions"].select([])}))
    with pytest.raises(DataError, match=r"each user count 0, 1, \.\.\.: they are places"):
        cut_stream(market([(user, item, place) for user in "uvw" for place, item in enumerate("abc")]))
    with pytest.raises(DataError, match="of one domain"):
        table = log["interactions"].remove_columns("domain").add_column("domain", list("xyxyx"))
        next_block([], load_interactions(table))
    with pytest.raises(DataError, match=r"block 0 has no row in train: .* drops 3"):
        next_block([], market([("u", "a", 1), ("v", "b", 2), ("w", "c", 3)]), split="random")  # one each: all vanish
    with pytest.raises(DataError, match="block 0 has no row in valid"):
        next_block([], market([("u", "a", 1), ("v", "b", 2), ("w", "c", 3)]))


def test_blocks_of_another_stream_are_refused():
    stream = cut_stream(market(BASE + MORE), **HAND)
    later = market([(user, item, time + 20) for user, item, time in MORE])
    next_block(stream, later, held_out=0.2)
    other = cut_stream(market([(f"{user}!", item, time) for user, item, time in BASE + MORE]), **HAND)
    with pytest.raises(DataError, match="block 1 stands at place 0"):
        next_block(stream[1:], later)
    with pytest.raises(DataError, match="block 0 stands at place 1"):
        next_block([stream[0], stream[0]], later)
    with pytest.raises(DataError, match=r"grows from 3 users, .* or others in their places"):
        next_block([other[0], stream[1]], later)
    with pytest.raises(DataError, match=r"stream-random-users, but the stream is of 'shop', stream-temporal-users"):
        next_block(stream, later, split="random")
    with pytest.raises(DataError, match="the new log is of 'else'"):
        next_block(stream, market(MORE, domain="else"))
    with pytest.raises(DataError, match="was this log fed already"):
        next_block(stream, market(MORE[:4]))
    delayed = [("w", "b", 9), *((user, item, time + 20) for user, item, time in [*MORE[:3], *MORE])]
    late = next_block(stream, market(delayed), held_out=0.2)
    assert late.report["late_interactions"] == 1


@pytest.mark.parametrize("queries", ["users", "positions"])
@pytest.mark.parametrize("last", [[], [("x", "d", 11)]])  # a repeat, which sets hold once, as it came first
def test_the_very_log_that_was_fed_last_is_refused(queries, last):
    stream = cut_stream(market(BASE + MORE + last), blocks=1, held_out=0.2, base=0.5, queries=queries)
    with pytest.raises(DataError, match="was this log fed already"):
        next_block(stream, market(MORE + last), queries=queries, held_out=0.2)
    with pytest.raises(DataError, match="was this log fed already"):
        next_block(stream, market(BASE + MORE + last), queries=queries, held_out=0.2)


@pytest.mark.parametrize("split", ["random", "temporal"])
@pytest.mark.parametrize("queries", ["users", "positions"])
def test_an_export_of_the_whole_log_is_what_came_since(queries, split, caplog):
    """Days 1 to 10, then days 1 to 13: what block 0 tested may not train block 1."""
    events = sorted(random_market(7, items=60), key=lambda event: event[2])
    settings = {"queries": queries, "split": split}
    base = next_block([], market(events[:450]), **settings)
    since = next_block([base], market(events[450:]), **settings)
    assert not caplog.records
    export = next_block([base], market(events), **settings)
    assert export.report == {**since.report, "fed_before": 450} and export.fingerprint == since.fingerprint
    (record,) = caplog.records
    assert record.name.startswith("seqkd.data") and record.levelname == "WARNING"
    assert "450 of 600 interactions of the new log were fed before" in record.message


@pytest.mark.parametrize("queries", ["users", "positions"])
def test_late_interactions_of_new_pairs_stay_beside_what_was_fed_before(queries):
    stream = cut_stream(market(BASE + MORE), queries=queries, **HAND)
    late = [("w", "d", 6), ("new", "a", 2)]
    came = [("x", "a", 21), ("x", "b", 22), ("u", "c", 23), ("v", "a", 24), ("w", "b", 25), ("u", "a", 26)]
    block = next_block(stream, market(late + came), queries=queries, held_out=0.2)
    export = next_block(stream, market(BASE + MORE + late + came), queries=queries, held_out=0.2)
    assert export.report["late_interactions"] == block.report["late_interactions"] == 2
    assert export.report["fed_before"] == 10 and "fed_before" not in block.report
    assert export.fingerprint == block.fingerprint and export.users.item_ids[-1] == "new"


def test_without_times_nothing_was_fed_before():
    """CCD's blocks have none."""
    stream = cut_stream(market(BASE + MORE), **HAND)
    timeless = [replace(block, log=block.log.remove_columns("timestamp")) for block in stream]
    block = next_block(timeless, market(BASE + MORE), held_out=0.2)
    assert block.number == 2 and not {"fed_before", "late_interactions"} & set(block.report)


def test_more_of_the_last_moment_may_come():
    """Times of a day each: what comes in the evening has the day of what was learned at noon."""
    stream = cut_stream(market(random_market()), blocks=1, split="random")
    end = int(stream[1].columns["timestamp"].max())
    evening = [(user, item, end) for user, item, _ in random_market(seed=1, events=200)]
    block = next_block(stream, market(evening), split="random")
    assert block.number == 2 and "late_interactions" not in block.report


# ---- what else a stream is asked for --------------------------------------------------------------------------------


def test_retraining_reads_the_training_of_all_blocks():
    for queries, train in (
        ("users", [("u", [1, 4], 2, 0), ("v", [2, 5], 2, 1), ("w", [3], 1, 2), ("x", [4], 1, 3)]),
        ("positions", [("u", [1, 4], 1, 0), ("v", [2, 5], 1, 2), ("w", [3], 1, 4), ("x", [4], 1, 5)]),
    ):
        stream = cut_stream(market(BASE + MORE), queries=queries, **HAND)
        everything = whole(stream)
        assert rows(everything.train) == train  # what block 0 held out is not trained on
        assert rows(everything.test) == rows(stream[1].test) and everything.catalogue == stream[1].catalogue
        assert everything.fingerprint != stream[1].fingerprint
        assert len(everything.pairs("train")[0]) == 6 and len(everything.pairs("valid")[0]) == 1
    with pytest.raises(DataError, match="no block"):
        whole([])


def with_titles(rows, ids: str):
    """A market of `rows`, and items whose title is their id, large."""
    log = market(rows)
    log["items"] = Dataset(pa.table({"item_id": list(ids), "domain": ["shop"] * len(ids), "title": list(ids.upper())}))
    return log


def test_a_block_brings_what_is_told_about_its_new_items(tmp_path: Path):
    first = next_block([], with_titles(BASE, "zcba"), held_out=0.2)
    assert first.items["title"][:] == [item.upper() for item in first.catalogue.item_ids] == ["A", "B", "C"]
    first.save(tmp_path)
    assert Block.load(tmp_path).items["title"][:] == ["A", "B", "C"]
    with pytest.raises(DataError, match=r"1 of 3 new items of block 0 have no row in the item table, first \['a'\]"):
        next_block([], with_titles(BASE, "zcb"), held_out=0.2)


def test_items_of_another_block_are_refused(tmp_path: Path):
    block = next_block([], with_titles(BASE, "zcba"), held_out=0.2)
    block.save(tmp_path)
    other = table_of(block.items).set_column(2, "title", pa.array(["A", "C", "B"]))
    pq.write_table(other, tmp_path / "items.parquet")
    with pytest.raises(DataError, match=r"the files give the fingerprint"):
        Block.load(tmp_path)


def test_ml_100k_as_a_temporal_stream(data: Path):
    stream = cut_stream(load_interactions(data / "ml_100k"), queries="positions")
    sizes = [len(block.log) for block in stream]
    assert sum(sizes) == 100_000 and max(np.abs(np.array(sizes) - [50_000, *[10_000] * 5])) < 200
    assert len(stream[-1].users) == 943 and len(stream[-1].catalogue) == 1_682
    times = [block.columns["timestamp"] for block in stream]
    assert all(before[-1] < after[0] for before, after in pairwise(times))

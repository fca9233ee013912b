from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict

from seqkd.data.columns import PROTOCOLS
from seqkd.data.interactions import load_interactions
from seqkd.data.splits import combine_items, leave_one_out, load_markets, preset, ratio_split, split_by, temporal
from seqkd.errors import ConfigError, DataError


def market(events: list[tuple[str, str, int]], domain: str = "books", **columns: list) -> DatasetDict:
    users, items, times = zip(*events, strict=True)
    table = pa.table({"user_id": users, "item_id": items, "timestamp": times, **columns})
    names = sorted({*items, "z"})  # a b c ... = 1 2 3 ..., and z is cold
    tables = {"interactions": Dataset(table), "items": Dataset(pa.table({"item_id": names}))}
    return load_interactions(DatasetDict(tables), domain=domain)


def rows(part: Dataset) -> list[tuple]:
    return [(row["user_id"], row["item_ids"], row["first_target"], row["query_start"]) for row in part]


EVENTS = [
    ("u", "a", 1),
    ("v", "d", 5),
    ("u", "c", 4),
    ("u", "b", 2),
    ("v", "b", 6),
    ("u", "d", 9),
    ("w", "a", 3),
    ("v", "c", 7),
]


def test_leave_one_out_by_hand():
    split = leave_one_out(market(EVENTS))
    assert rows(split.train) == [("u", [1, 2], 1, 0), ("v", [4], 1, 2), ("w", [1], 1, 3)]
    assert rows(split.valid) == [("u", [1, 2, 3], 2, 0), ("v", [4, 2], 1, 2)]
    assert rows(split.test) == [("u", [1, 2, 3, 4], 3, 0), ("v", [4, 2, 3], 2, 2)]
    assert split.protocol == "loo" and split.domain == "books" and split.catalogue.item_ids == ("a", "b", "c", "d", "z")
    assert split.report == {
        "users": 3,
        "items": 5,
        "interactions": 8,
        "cold_items": 1,
        "moved_by_sorting": 1,
        "users_only_in_train": 1,
        "train_rows": 3,
        "valid_rows": 2,
        "test_rows": 2,
    }


def test_ties_keep_the_order_of_the_input_and_are_counted():
    events = [("u", item, 7) for item in "dbca"]
    split = leave_one_out(market(events))
    assert rows(split.test) == [("u", [4, 2, 3, 1], 3, 0)]
    assert split.report["tied_timestamps"] == 3
    repeated = leave_one_out(market([*events, ("u", "d", 8)]))
    assert repeated.report["repeated_interactions"] == 1 and repeated.test[0]["item_ids"] == [4, 2, 3, 1, 4]


def test_long_histories_are_cut():
    split = leave_one_out(market([("u", item, step) for step, item in enumerate("abcdefghij")]), max_length=4)
    assert rows(split.train) == [
        ("u", [1, 2, 3, 4, 5], 1, 0),
        ("u", [3, 4, 5, 6, 7], 3, 5),
        ("u", [4, 5, 6, 7, 8], 4, 8),
    ]
    assert rows(split.valid) == [("u", [5, 6, 7, 8, 9], 4, 0)]
    assert rows(split.test) == [("u", [6, 7, 8, 9, 10], 4, 0)]
    assert split.report["train_histories_cut"] == split.report["test_histories_cut"] == 1


def test_temporal_by_hand():
    split = temporal(market(EVENTS), valid_from=4, test_from=7)
    assert rows(split.train) == [("u", [1, 2], 1, 0), ("w", [1], 1, 2)]
    assert rows(split.valid) == [("u", [1, 2, 3], 2, 0), ("v", [4, 2], 1, 2)]  # v starts here: d has no history
    assert rows(split.test) == [("u", [1, 2, 3, 4], 3, 0), ("v", [4, 2, 3], 2, 2)]
    assert split.report["valid_first_items_without_history"] == 1
    shares = temporal(market(EVENTS), valid_from=0.5, test_from=0.75)  # sorted times 1 2 3 4 5 6 7 9: 5 and 7
    assert rows(shares.valid) == [("v", [4, 2], 1, 0)]


def test_temporal_limits_are_checked():
    with pytest.raises(DataError, match="no interaction falls into train: the data covers 1 to 9"):
        temporal(market(EVENTS), valid_from=1, test_from=7)
    with pytest.raises(ConfigError, match="Swap them"):
        temporal(market(EVENTS), valid_from=7, test_from=4)
    with pytest.raises(ConfigError, match=r"between 0 and 1, not 7\.5"):
        temporal(market(EVENTS), valid_from=7.5, test_from=9)


def test_preset_keeps_the_split_of_the_data():
    parts = ["train", "test", "train", "valid", "train", "test", "train", "val"]
    split = preset(market(EVENTS, split=parts))
    assert rows(split.train) == [("u", [1, 3], 1, 0), ("v", [2], 1, 2), ("w", [1], 1, 3)]
    assert rows(split.valid) == [("u", [1, 3, 2], 2, 0), ("v", [2, 3], 1, 2)]
    assert rows(split.test) == [("u", [1, 3, 2, 4], 3, 0), ("v", [2, 3, 4], 2, 2)]
    with pytest.raises(DataError, match="no column 'split'"):
        preset(market(EVENTS))


def test_wrong_arguments():
    with pytest.raises(ConfigError, match="max_length is 0"):
        leave_one_out(market(EVENTS), max_length=0)
    with pytest.raises(ConfigError, match="'leave-one-out'"):
        split_by(market(EVENTS), "leave-one-out")
    both = market(EVENTS, domain=None, split=["train"] * 8)
    mixed = load_interactions(both["interactions"].add_column("extra", [0] * 8))
    assert split_by(mixed, "preset").train.num_rows == 3
    table = both["interactions"].remove_columns("domain").add_column("domain", list("xyxyxyxy"))
    with pytest.raises(DataError, match="of one domain"):
        leave_one_out(load_interactions(table))


def test_the_order_of_item_rows_changes_ids_but_no_history():
    first = leave_one_out(market(EVENTS))
    log = market(EVENTS)
    turned = DatasetDict(log | {"items": log["items"].select([4, 3, 2, 1, 0])})
    second = leave_one_out(turned)
    for one, two in zip(first.test, second.test, strict=True):
        assert first.catalogue.decode(one["item_ids"]) == second.catalogue.decode(two["item_ids"])
    assert first.fingerprint != second.fingerprint


def test_several_sources_are_several_domains():
    markets = load_markets([market(EVENTS, "x"), market(EVENTS, "y")], min_interactions=0)
    assert list(markets) == ["x", "y"]
    assert combine_items(list(markets.values()))["item_id"][:][4:6] == ["x/z", "y/a"]
    with pytest.raises(DataError, match="both hold the domain 'x'"):
        load_markets([market(EVENTS, "x"), market(EVENTS, "x")])


def test_slow_loop_over_random_logs_gives_the_same_rows():
    rng = np.random.default_rng(3)
    events = [(f"u{user}", chr(97 + item), int(when)) for user, item, when in rng.integers(0, [9, 20, 30], (150, 3))]
    log = market(events)
    split = leave_one_out(log, max_length=50)
    ids = {item: row for row, item in enumerate(log["items"]["item_id"][:], start=1)}
    histories: dict[str, list] = {}
    for order, (user, item, when) in enumerate(events):
        histories.setdefault(user, []).append((when, order, ids[item]))
    expected = [[item for _, _, item in sorted(history)] for history in histories.values()]
    assert [row["item_ids"] for row in split.test] == expected
    assert [row["item_ids"] for row in split.valid] == [history[:-1] for history in expected]
    assert [row["item_ids"] for row in split.train] == [history[:-2] for history in expected]


def test_a_million_interactions_split_in_seconds():
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "user_id": pa.array(rng.integers(0, 60_000, 1_000_000)),
            "item_id": pa.array(rng.integers(0, 30_000, 1_000_000)),
            "timestamp": pa.array(rng.integers(0, 10**9, 1_000_000)),
        }
    )
    begin = time.perf_counter()
    split = leave_one_out(load_interactions(Dataset(table)))
    assert time.perf_counter() - begin < 15  # about 2 s alone on one core
    assert sum(split.test["first_target"][:]) > 0


def test_scientific_leave_one_out(data: Path):
    split = leave_one_out(load_interactions(data / "amazon_scientific"))
    assert (split.test.num_rows, len(split.catalogue)) == (8_317, 4_344)
    labelled = sum(len(row["item_ids"]) - row["first_target"] for row in split.train)
    assert labelled == 58_492 - 3 * 8_317  # every train item but the first of each user
    assert split.test.num_rows == split.valid.num_rows == split.report["users"]


def test_ml_100k_temporal(data: Path):
    log = load_interactions(data / "ml_100k")
    split = temporal(log, valid_from=0.8, test_from=0.9)
    times = np.sort(np.array(log["interactions"]["timestamp"][:]))
    limit, end = times[80_000], times[90_000]
    labelled = {name: sum(len(row["item_ids"]) - row["first_target"] for row in part) for name, part in parts(split)}
    users = np.array(log["interactions"]["user_id"][:])
    when = np.array(log["interactions"]["timestamp"][:])
    for name, low, high in (("train", 0, limit), ("valid", limit, end), ("test", end, times[-1] + 1)):
        inside = (when >= low) & (when < high)
        newcomers = set(users[inside]) - set(users[when < low])  # their first item is no target
        assert labelled[name] == inside.sum() - len(newcomers)


def parts(split) -> list[tuple[str, Dataset]]:
    return [("train", split.train), ("valid", split.valid), ("test", split.test)]


def test_a_query_for_every_user():
    """queries="users": one training row and one query a user, histories whole, evaluation as ever."""
    split = leave_one_out(market(EVENTS), max_length=1, queries="users")
    assert rows(split.train) == [("u", [1, 2], 2, 0), ("v", [4], 1, 1), ("w", [1], 1, 2)]
    assert rows(split.test) == [("u", [1, 2, 3, 4], 3, 0), ("v", [4, 2, 3], 2, 2)]
    assert split.users.item_ids == ("u", "v", "w")
    with pytest.raises(ConfigError, match="'positions', 'users'"):
        leave_one_out(market(EVENTS), queries="sets")


# ---- at random, by ratio ------------------------------------------------------------------------------------------


def many(users=7, seed=0):
    """Users with 1, 4, 5, 9, 10, 11 and 20 items."""
    draw = np.random.default_rng(seed)
    names = [f"i{number:02}" for number in range(30)]
    events = []
    for user, count in zip(range(users), (1, 4, 5, 9, 10, 11, 20), strict=True):
        for time_, item in enumerate(draw.permutation(30)[:count]):
            events.append((f"u{user}", names[item], time_))
    return events


def sets_of(split):
    """Items of each part by user, and of training and validation those before the targets."""
    found = {}
    for name in ("train", "valid", "test"):
        for row in split.part(name):
            first = 0 if name == "train" else row["first_target"]
            found.setdefault(row["user_id"], {})[name] = row["item_ids"][first:]
            found[row["user_id"]][f"before {name}"] = row["item_ids"][:first]
    return found


def test_a_ratio_split_holds_out_shares_of_each_user():
    events = many()
    split = ratio_split(market(events))
    assert split.protocol == "ratio" and split.report["users_only_in_train"] == 2
    found = sets_of(split)
    counts = {user: [len(parts.get(name, [])) for name in ("train", "valid", "test")] for user, parts in found.items()}
    assert counts == {
        "u0": [1, 0, 0],
        "u1": [4, 0, 0],
        "u2": [3, 1, 1],
        "u3": [7, 1, 1],
        "u4": [6, 2, 2],
        "u5": [7, 2, 2],
        "u6": [12, 4, 4],
    }
    for user, parts in found.items():
        everything = [split.catalogue.encode([item])[0] for name, item, _ in events if name == user]
        held = [item for name in ("train", "valid", "test") for item in parts.get(name, [])]
        assert sorted(held) == sorted(everything)  # each in one part
        if "valid" in parts:
            assert parts["before valid"] == parts["train"]
            assert parts["before test"] == parts["train"] + parts["valid"]
            times = [everything.index(item) for item in parts["train"]]
            assert times == sorted(times)  # by time within a part
    assert all(row["first_target"] == len(row["item_ids"]) for row in split.train)  # sets


def test_a_ratio_split_is_random_and_repeats_itself():
    events = many()
    split = ratio_split(market(events), seed=1)
    assert split.fingerprint == ratio_split(market(events), seed=1).fingerprint
    assert split.fingerprint != ratio_split(market(events), seed=2).fingerprint
    alone = [event for event in events if event[0] == "u4"]  # 10 items, 2 of them in test
    held_out = 0
    for seed in range(40):
        drawn = ratio_split(market(alone), seed=seed)
        held_out += drawn.catalogue.encode([alone[-1][1]])[0] in sets_of(drawn)["u4"]["test"]
    assert 2 <= held_out <= 16  # the newest item no more often than another: 8 times is to be expected


def test_a_repeated_interaction_is_in_one_part():
    events = [("u", "abcdefghij"[step % 10], step) for step in range(30)]
    found = sets_of(ratio_split(market(events)))["u"]
    assert sorted(found["train"] + found["valid"] + found["test"]) == list(range(1, 11))


def test_ratio_is_a_protocol_by_name_and_asks_for_sets():
    log = market(many())
    by_name = split_by(log, "ratio", max_length=2)  # a user is one row, however long
    assert by_name.protocol == "ratio" and by_name.fingerprint == ratio_split(log).fingerprint
    in_order = split_by(log, "ratio", max_length=99, queries="positions")
    assert in_order.fingerprint == ratio_split(log, max_length=99, queries="positions").fingerprint
    assert split_by(log, "loo").fingerprint == leave_one_out(log, queries="positions").fingerprint


def test_every_protocol_splits_under_its_name():
    log = market(EVENTS, split=["train", "test", "train", "valid", "train", "test", "train", "val"])
    assert [split_by(log, protocol).protocol for protocol in PROTOCOLS] == [*PROTOCOLS]
    with pytest.raises(ConfigError, match="'loo', 'temporal', 'preset', 'ratio'"):
        split_by(log, "random")


def test_other_shares_are_another_protocol():
    """No card may say 60/20/20 of them."""
    log = market(many())
    assert ratio_split(log, ratios=(0.8, 0.1, 0.1)).protocol == "ratio 0.8/0.1/0.1"
    assert ratio_split(log, ratios=(3 / 5, 1 / 5, 1 / 5)).protocol == "ratio"


@pytest.mark.parametrize("ratios", [(0.6, 0.4), (0.6, 0.2, 0.1), (1.0, 0.0, 0.0), (0.8, 0.4, -0.2)])
def test_wrong_ratios_are_refused(ratios):
    with pytest.raises(ConfigError, match="three shares above 0"):
        ratio_split(market(EVENTS), ratios=ratios)

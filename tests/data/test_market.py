from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise

import pytest

from seqkd.data.interactions import by_domain, load_interactions
from seqkd.data.market import synthetic_market
from seqkd.data.splits import leave_one_out
from seqkd.errors import ConfigError


@pytest.fixture(scope="module")
def market():
    begin = time.perf_counter()
    market = synthetic_market(0)
    assert time.perf_counter() - begin < 3
    return market


def theme_of(market) -> dict[str, str]:
    return {row["item_id"]: row["categories"].split(", ")[1] for row in market["items"]}


def test_sizes_and_checks(market):
    assert load_interactions(market)["items"].num_rows == 1200  # passes every check of ours
    for part in by_domain(market).values():
        users = Counter(part["interactions"]["user_id"][:])
        assert len(users) == 1500 and min(users.values()) >= 4 and 8 < sum(users.values()) / 1500 < 10
        pairs = list(zip(part["interactions"]["user_id"][:], part["interactions"]["item_id"][:], strict=True))
        assert len(set(pairs)) == len(pairs)


def test_equal_seeds_give_equal_rows_and_other_seeds_do_not():
    small = {"users": 20, "items": 60, "max_length": 20}
    first, second, other = (synthetic_market(seed, **small)["interactions"].to_list() for seed in (5, 5, 6))
    assert first == second != other


def test_there_is_a_long_tail(market):
    for part in by_domain(market).values():
        counts = sorted(Counter(part["interactions"]["item_id"][:]).values(), reverse=True)
        assert sum(counts[:60]) > 0.3 * sum(counts)  # a tenth of the items takes a third of the interactions
        assert 600 - len([count for count in counts if count >= 5]) > 60  # a tenth of the items is cold


def test_taste_crosses_domains(market):
    themes = theme_of(market)
    favourite: dict[str, dict[str, str]] = {}
    for name, part in by_domain(market).items():
        seen: dict[str, Counter] = {}
        for row in part["interactions"]:
            seen.setdefault(row["user_id"], Counter())[themes[row["item_id"]]] += 1
        favourite[name] = {user: counts.most_common(1)[0][0] for user, counts in seen.items()}
    books, films = favourite["books"], favourite["films"]
    same = sum(books[user] == films[user] for user in books) / len(books)
    assert same > 0.4  # by chance 1 in 12


def test_text_and_order_carry_signal(market):
    """Items that follow each other share words far more often than two items of different users do."""
    part = by_domain(market)["books"]
    words = {row["item_id"]: set(row["title"].lower().replace(",", "").split()[:5:2]) for row in part["items"]}
    split = leave_one_out(part)
    histories = [split.catalogue.decode(row["item_ids"]) for row in split.test]
    near = sum(bool(words[items[-1]] & words[items[-2]]) for items in histories) / len(histories)
    far = sum(bool(words[one[-1]] & words[two[-2]]) for one, two in pairwise(histories)) / len(histories)
    assert near > 2.5 * far


def test_impossible_sizes_are_refused():
    with pytest.raises(ConfigError, match="1 to 4 domains"):
        synthetic_market(domains=5)
    with pytest.raises(ConfigError, match="mean_length"):
        synthetic_market(mean_length=3)

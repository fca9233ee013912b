"""Metrics by history length and item frequency, on queries few enough to sort by hand."""

from __future__ import annotations

from dataclasses import replace
from math import log2

import numpy as np
import pytest
import torch

from seqkd.errors import ConfigError, DataError
from seqkd.evaluation.ranks import Ranks
from seqkd.evaluation.slices import ITEM_FREQUENCY, Slice, compare, slice_table, slices

COUNTS = torch.tensor([0.0, 0, 3, 4, 5, 100])  # item 1 is cold
RANKS = Ranks(
    ranks=np.array([0, 1, 50, 2, 0, 50]),
    targets=np.array([1, 2, 3, 4, 5, 5]),
    history_lengths=np.array([1, 2, 3, 3, 9, 40]),
    depth=50,
    history="masked",
)
SECOND, THIRD = 1 / log2(3), 1 / log2(4)  # what NDCG gives to the second and the third place


def test_by_hand():
    cut = slices(RANKS, COUNTS, ks=(1, 10))
    assert [(part.kind, part.label, part.num_queries) for part in cut] == [
        ("history length", "1-2", 2),
        ("history length", "3-4", 2),
        ("history length", "5-8", 0),
        ("history length", "9+", 2),
        ("item frequency", "0 (cold)", 1),
        ("item frequency", "1-4", 2),
        ("item frequency", "5-9", 1),
        ("item frequency", "10-19", 0),
        ("item frequency", "20+", 2),
    ]
    ndcg = [part.metrics.get("ndcg@10") for part in cut]
    expected = [(1 + SECOND) / 2, THIRD / 2, None, 0.5, 1.0, SECOND / 2, THIRD, None, 0.5]
    for value, wanted in zip(ndcg, expected, strict=True):
        assert value == (None if wanted is None else pytest.approx(wanted))
    assert [part.metrics.get("recall@1") for part in cut[:4]] == [0.5, 0.0, None, 0.5]
    assert cut[2].metrics == {}


def test_of_sets_a_slice_holds_what_is_chosen_of_each():
    # user 0 wants items 1, 2 and 3, at ranks 0, 9 and 1, user 1 item 1 at rank 9; only item 2 was bought ten times
    ranks, targets, rows = np.array([0, 9, 1, 9]), np.array([1, 2, 3, 1]), np.array([0, 0, 0, 1])
    sizes, lengths = np.array([3, 3, 3, 1]), np.full(4, 5)
    sets = Ranks(ranks, targets, lengths, depth=9, history="masked", set_sizes=sizes, largest_set=3, rows=rows)
    counts = torch.tensor([0.0, 1.0, 10.0, 1.0])
    told = {found.label: found for found in slices(sets, counts, ks=(5,), frequencies=(1, 10))}
    assert told["1-9"].metrics["recall@5"] == (1.0 + 0.0) / 2  # both of user 0's rare items, none of user 1's
    assert told["10+"].metrics["recall@5"] == 0.0 and told["10+"].num_queries == 1


def test_every_query_is_once_in_either_kind():
    for kind in ("history length", "item frequency"):
        parts = [part for part in slices(RANKS, COUNTS) if part.kind == kind and part.num_queries]
        whole = sum(part.num_queries * part.metrics["ndcg@10"] for part in parts) / len(RANKS.ranks)
        assert whole == pytest.approx(RANKS.metrics((10,))["ndcg@10"])


def test_bins_are_arguments():
    cut = slices(RANKS, COUNTS, lengths=(1,), frequencies=(0, 4, 5))
    assert [(part.label, part.num_queries) for part in cut] == [("1+", 6), ("0-3", 2), ("4", 1), ("5+", 3)]


def test_no_queries():
    nothing = Ranks(*(np.zeros(0, dtype=np.int64) for _ in range(3)), depth=50, history="masked")
    assert {part.num_queries for part in slices(nothing, COUNTS)} == {0}


def test_refused():
    with pytest.raises(ConfigError, match=r"2 queries have a history length below 3.*least is 1"):
        slices(RANKS, COUNTS, lengths=(3, 5))
    for wrong in ((), (0, 5, 5), (5, 0)):
        with pytest.raises(ConfigError, match="bins of item frequency must start at increasing"):
            slices(RANKS, COUNTS, frequencies=wrong)
    with pytest.raises(DataError, match="item 5 was ranked, but there are counts for items up to 4"):
        slices(RANKS, COUNTS[:5])


# ---- several models -------------------------------------------------------------------------------------------------


def run(value):
    return [Slice(ITEM_FREQUENCY, "0 (cold)", 1200, {"ndcg@10": value}), Slice(ITEM_FREQUENCY, "1+", 0, {})]


def test_table_with_spread_over_seeds():
    text = slice_table({"one|two": [run(0.10), run(0.16)], "alone": [run(0.05)]})
    rows = [[cell.strip() for cell in line.split(" | ")] for line in text.splitlines()]
    assert rows[0] == ["| NDCG@10 by", "bin", "queries", r"one\|two", "alone |"]
    # deviations of .03 each: sqrt(2 * .0009 / 1)
    assert rows[2] == ["| item frequency", "0 (cold)", "1,200", "0.1300 ± 0.0424", "0.0500 |"]
    assert rows[3] == ["| item frequency", "1+", "0", "-", "- |"]
    cold = compare({"one": [run(0.10), run(0.16)]})[0]
    assert cold.spreads["one"] == pytest.approx((0.13, 0.03 * 2**0.5, 2))


def test_what_cannot_be_compared():
    with pytest.raises(DataError, match="with a seed at least"):
        compare({})
    with pytest.raises(DataError, match="with a seed at least"):
        compare({"one": []})
    other = [replace(run(0.1)[0], num_queries=7), run(0.1)[1]]
    with pytest.raises(DataError, match=r"'two' has 7 queries of item frequency 0 \(cold\) where .* 1200"):
        compare({"one": [run(0.1)], "two": [other]})
    with pytest.raises(DataError, match="'one' has 1 slices, another model or seed 2"):
        compare({"one": [run(0.1), run(0.1)[:1]]})
    with pytest.raises(DataError, match=r"mrr@10 of 'one' was not measured, only \['ndcg@10'\]"):
        compare({"one": [run(0.1)]}, "mrr@10")

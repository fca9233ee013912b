"""One history per query: by hand, against the packed collator, and one drawn query per row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqkd.batches.collators import UNLABELLED, QueryCollator, Sequence
from seqkd.batches.history_collator import HistoryCollator


def row(items, first_target=1, query_start=0):
    return Sequence(np.array(items, dtype=np.int32), first_target, query_start)


def random_rows(seed: int, longest: int = 12) -> list[Sequence]:
    rng = np.random.default_rng(seed)
    rows, start = [], 0
    for n in rng.integers(0, longest, size=40):
        first = int(rng.integers(0, n + 1))
        rows.append(row(rng.integers(1, 50, size=n), first, start))
        start += n - first + 1
    return rows


def test_two_rows_by_hand():
    batch = HistoryCollator(3, tail=True, seen=True)([row([5, 6, 7]), row([1, 2, 3, 4, 9], 4, 10)])
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "histories": [[5, 0, 0], [6, 5, 0], [7, 6, 5], [4, 3, 2], [9, 4, 3]],
        "user_ids": [0, 0, 0, 0, 0],
        "targets": [6, 7, UNLABELLED, 9, UNLABELLED],
        "query_ids": [0, 1, 2, 10, 11],
        "history_lengths": [1, 2, 3, 4, 5],
        "seen_query": [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4],
        "seen_items": [5, 5, 6, 5, 6, 7, 1, 2, 3, 4, 1, 2, 3, 4, 9],
    }
    assert all(tensor.dtype == torch.int64 for tensor in batch.values())


@pytest.mark.parametrize("tail", [False, True])
def test_it_asks_what_the_packed_collator_asks(tail):
    rows = random_rows(0)
    ours = HistoryCollator(20, tail=tail, seen=True)(rows)
    theirs = QueryCollator(20, tail=tail, seen=True)(rows)
    for name in ("targets", "query_ids", "history_lengths", "seen_query", "seen_items"):
        assert torch.equal(ours[name], theirs[name]), name


def test_a_long_history_loses_items_but_no_query():
    rows = [row(range(1, 31), 1, 7)]
    ours, theirs = HistoryCollator(4)(rows), QueryCollator(4)(rows)
    assert len(theirs["query_ids"]) == 4 and ours["query_ids"].tolist() == list(range(7, 36))
    assert ours["histories"][-1].tolist() == [29, 28, 27, 26] and ours["history_lengths"][-1] == 29


def test_training_draws_one_labelled_query_of_each_row():
    rows = random_rows(1)
    collate, every = HistoryCollator(20, tail=True, sample_one=True), HistoryCollator(20)(rows)
    asked = {
        query: (target, history)
        for query, target, history in zip(
            *(every[n].tolist() for n in ("query_ids", "targets", "histories")), strict=True
        )
    }
    drawn = []
    for collate.epoch in range(200):
        drawn.append(collate(rows))
    for batch in drawn:
        for query, target, history in zip(
            *(batch[n].tolist() for n in ("query_ids", "targets", "histories")), strict=True
        ):
            assert asked[query][0] == target and [i for i in asked[query][1] if i] == [i for i in history if i]
    assert {query for batch in drawn for query in batch["query_ids"].tolist()} == asked.keys()
    with_queries = sum(len(r.item_ids) > max(r.first_target, 1) for r in rows)
    assert all(len(batch["targets"]) == with_queries for batch in drawn)
    collate.epoch = 0
    assert torch.equal(collate(rows)["query_ids"], drawn[0]["query_ids"])  # whatever was drawn in between


def test_rows_without_queries_give_an_empty_batch():
    for rows in ([], [row([]), row([3])]):
        batch = HistoryCollator(4, seen=True)(rows)
        assert batch["histories"].shape == (0, 1) and len(batch["targets"]) == len(batch["seen_items"]) == 0

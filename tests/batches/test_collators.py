"""Packed batches by hand: which slot holds what, which slot answers which query, and what a query may not miss."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import torch

from seqkd.batches.collators import UNLABELLED, QueryCollator, Sequence, SequenceDataset
from seqkd.errors import DataError


def row(items, first_target=1, query_start=0):
    return Sequence(np.array(items, dtype=np.int32), first_target, query_start)


def lists(batch):
    return {name: tensor.tolist() for name, tensor in batch.items()}


def read_back(batch):
    """For every query: (id, target, the items of its sequence up to its slot), from the tensors alone."""
    width = batch["item_ids"].shape[1]
    found = {}
    columns = [batch[name].tolist() for name in ("query_index", "targets", "query_ids")]
    for index, target, query in zip(*columns, strict=True):
        r, column = divmod(index, width)
        same = [c for c in range(column + 1) if batch["sequence_ids"][r, c] == batch["sequence_ids"][r, column]]
        found[query] = (target, [int(batch["item_ids"][r, c]) for c in same])
    return found


def test_three_sequences_by_hand():
    batch = lists(QueryCollator(4)([row([5, 6, 7]), row([1, 2, 3, 4, 9], 3, 10), row([8, 4], 1, 20)]))
    # Slots read: [5 6] for targets 6 7, [1 2 3 4] for targets 4 9, [8] for target 4.
    assert batch == {
        "item_ids": [[1, 2, 3, 4], [5, 6, 8, 0]],
        "sequence_ids": [[2, 2, 2, 2], [1, 1, 3, 0]],
        "position_ids": [[0, 1, 2, 3], [0, 1, 0, 0]],
        "query_index": [4, 5, 2, 3, 6],
        "targets": [6, 7, 4, 9, 4],
        "query_ids": [0, 1, 10, 11, 20],
        "history_lengths": [1, 2, 3, 4, 1],
    }


def test_the_tail_query_is_unlabelled_and_last():
    batch = lists(QueryCollator(4, tail=True)([row([5, 6, 7])]))
    assert batch["item_ids"] == [[5, 6, 7]]
    assert batch["targets"] == [6, 7, UNLABELLED] and batch["query_ids"] == [0, 1, 2]


def test_every_query_sees_its_own_history():
    rng = np.random.default_rng(0)
    rows, start = [], 0
    for n in rng.integers(1, 12, size=40):
        items = rng.integers(1, 50, size=n)
        first = int(rng.integers(1, n + 1))
        rows.append(row(items, first, start))
        start += n - first + 1
    found = read_back(QueryCollator(6, tail=True)(rows))
    expected = {}
    for sequence in rows:
        n = len(sequence.item_ids)
        for p in range(max(sequence.first_target, n - 6 + 1), n + 1):  # 6 slots hold items[n-6:]
            history = sequence.item_ids[max(n - 6, 0) : p].tolist()
            target = int(sequence.item_ids[p]) if p < n else UNLABELLED
            expected[sequence.query_start + p - sequence.first_target] = (target, history)
    assert found == expected


def test_packing_leaves_little_padding():
    rng = np.random.default_rng(0)
    rows = [row(rng.integers(1, 9, size=n)) for n in rng.geometric(0.25, size=256) + 1]
    batch = QueryCollator(50)(rows)
    assert (batch["item_ids"] != 0).float().mean() > 0.9


def test_left_padding_numbers_positions_from_the_newest_item():
    batch = lists(QueryCollator(4, pack=False, padding_side="left")([row([5, 6, 7]), row([8, 9])]))
    assert batch["item_ids"] == [[0, 0, 5, 6], [0, 0, 0, 8]]
    assert batch["position_ids"] == [[0, 0, 3, 4], [0, 0, 0, 4]]
    assert batch["query_index"] == [2, 3, 7]
    packed = lists(QueryCollator(4, padding_side="left")([row([5, 6, 7]), row([8, 9])]))
    assert packed["item_ids"] == [[5, 6, 8]] and packed["position_ids"] == [[3, 4, 4]]


def test_right_padding_without_packing():
    batch = lists(QueryCollator(4, pack=False)([row([5, 6, 7]), row([8, 9])]))
    assert batch["item_ids"] == [[5, 6, 0, 0], [8, 0, 0, 0]] and batch["query_index"] == [0, 1, 4]


def test_seen_pairs_hold_the_whole_history_even_where_it_is_cut():
    batch = lists(QueryCollator(2, seen=True)([row([5, 6, 7, 8], 3), row([9, 1], 1)]))
    assert batch["item_ids"] == [[6, 7], [9, 0]] and batch["targets"] == [8, 1]
    assert batch["seen_query"] == [0, 0, 0, 1] and batch["seen_items"] == [5, 6, 7, 9]


def test_rows_without_queries_and_empty_rows():
    batch = QueryCollator(4)([row([5], 1), row([], 0), row([], 1), row([1, 2], 1, 7)])
    assert batch["query_ids"].tolist() == [7] and batch["targets"].tolist() == [2]
    nothing = QueryCollator(4)([row([5], 1)])
    assert all(len(nothing[name]) == 0 for name in ("query_index", "targets", "query_ids"))
    assert all(tensor.dtype == torch.int64 for tensor in nothing.values())


def rows_of(item_ids, first_target, query_start):
    columns = {"user_id": [f"u{i}" for i in range(len(item_ids))], "item_ids": item_ids}
    return datasets.Dataset.from_dict({**columns, "first_target": first_target, "query_start": query_start})


def test_dataset_reads_rows():
    rows = SequenceDataset(rows_of([[1, 2, 3], [4, 5]], [1, 1], [0, 3]), num_items=5)
    assert len(rows) == 2 and rows.num_queries == 5
    assert rows[1].item_ids.tolist() == [4, 5] and rows[1][1:] == (1, 3, 0)


def test_dataset_keeps_to_a_selection():
    part = rows_of([[1, 2, 3], [4, 5], [2, 1]], [1, 1, 1], [0, 3, 5]).select([2, 1])
    rows = SequenceDataset(part, num_items=5)
    assert [row.item_ids.tolist() for row in rows] == [[2, 1], [4, 5]]


@pytest.mark.parametrize("item", [0, 6, -1])
def test_dataset_names_an_item_outside_the_catalogue(item):
    with pytest.raises(DataError, match=rf"row 1 \(user 'u1'\), position 1: item {item} is outside 1\.\.5"):
        SequenceDataset(rows_of([[1, 2, 3], [4, item]], [1, 1], [0, 3]), num_items=5)


def test_no_sequences_make_an_empty_batch():
    batch = QueryCollator(5, seen=True)([])
    assert batch["item_ids"].shape == (0, 0) and all(tensor.numel() == 0 for tensor in batch.values())

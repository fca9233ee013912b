"""Interactions: distinct pairs of a split, checks, and one list for each user and item."""

from __future__ import annotations

import pytest
import torch

from seqkd.batches.collators import SequenceDataset
from seqkd.batches.edges import Neighbours, distinct_edges, edges_of
from seqkd.errors import DataError
from tests.tiny import ITEMS, rows_of, tiny_split


def test_edges_are_the_distinct_pairs_of_training():
    rows = rows_of([[2, 1, 2], [3], [2, 4]], False)
    users = type(tiny_split().users)(["u2", "u0", "u1"])
    edges = edges_of(SequenceDataset(rows, ITEMS, users=users))
    assert edges.T.tolist() == [[1, 2], [1, 4], [2, 1], [2, 2], [3, 3]]
    part = SequenceDataset(rows.select([2]), ITEMS, users=users)  # a view that does not begin at the first value
    assert edges_of(part).T.tolist() == [[1, 2], [1, 4]]
    with pytest.raises(DataError, match=r"users=split\.users"):
        edges_of(SequenceDataset(rows, ITEMS))


def test_each_pair_once_by_user_and_item():
    edges = distinct_edges(torch.tensor([[3, 1, 3, 3], [2, 4, 1, 2]]), 3, 4)
    assert edges.T.tolist() == [[1, 4], [3, 1], [3, 2]] and edges.dtype == torch.int32


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (torch.tensor([[1], [7]]), r"items 7\.\.7, but this model has 1\.\.6"),
        (torch.tensor([[0], [1]]), r"users 0\.\.0"),
        (torch.tensor([1, 2]), r"\(2, E\)"),
        (torch.zeros(2, 0, dtype=torch.long), "at least 1"),
        (torch.tensor([[1.0], [1.0]]), "integers"),
    ],
)
def test_wrong_edges_are_refused(edges, message):
    with pytest.raises(DataError, match=message):
        distinct_edges(edges, 4, 6)


def test_lists_of_users_and_of_items():
    users, items = torch.tensor([[1, 1, 2, 2, 2, 4], [1, 2, 2, 3, 5, 4]], dtype=torch.int32)
    of_users, of_items = Neighbours.of(users, items, 5), Neighbours.of(items, users, 6)
    assert of_users.lists(torch.tensor([2, 0, 1, 3, 2])).tolist() == [[2, 3, 5], [0] * 3, [1, 2, 0], [0] * 3, [2, 3, 5]]
    assert of_items.lists(torch.tensor([2, 6])).tolist() == [[1, 2], [0, 0]]
    assert of_users.lists(torch.tensor([3, 5])).tolist() == [[0], [0]]  # nobody has anything
    assert of_users.lists(torch.tensor([], dtype=torch.long)).shape == (0, 1)

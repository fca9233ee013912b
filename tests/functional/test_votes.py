from __future__ import annotations

import torch

from seqkd.functional.votes import most_voted


def test_votes_for_an_item_add_up():
    items = torch.tensor([[5, 2, 0, 2, 9, 5], [0, 0, 0, 0, 0, 0]])
    votes = torch.tensor([1.0, 0.5, 7.0, 0.75, 2.0, 0.25])  # 2 and 5 have 1.25 each, 9 has 2; an empty place has none
    ranked, total = most_voted(items, votes, 4)
    assert ranked.tolist() == [[9, 2, 5, 0], [0, 0, 0, 0]]  # of equals the lower id
    assert total.tolist() == [[2.0, 1.25, 1.25, 0.0], [0.0] * 4]


def test_as_many_places_as_are_asked_for():
    items = torch.tensor([[3, 1]])
    assert most_voted(items, torch.tensor([[1.0, 2.0]]), 1)[0].tolist() == [[1]]
    assert most_voted(items, torch.tensor([[1.0, 2.0]]), 4)[0].tolist() == [[1, 3, 0, 0]]

import pytest
import torch
from datasets import Dataset, Features, List, Value

from seqkd.batches.collators import SequenceDataset
from seqkd.batches.positives import Positives
from seqkd.catalogue import Catalogue
from seqkd.errors import DataError


def rows(histories, first, start, users):
    kinds = {"user_id": Value("string"), "item_ids": List(Value("int32")), "first_target": Value("int32")}
    columns = {"user_id": users, "item_ids": histories, "first_target": first, "query_start": start}
    return Dataset.from_dict(columns, features=Features({**kinds, "query_start": Value("int64")}))


def test_windows_of_one_user_are_one_user():
    part = rows([[5, 6, 7], [7, 8], [1, 2]], [1, 1, 1], [0, 3, 5], ["u", "u", "v"])
    positives = Positives(SequenceDataset(part, 9))
    assert positives.query_user.tolist() == [1, 1, 1, 1, 1, 2, 2]
    asked = positives.of_queries(torch.tensor([0, 6]), torch.tensor([[8, 5, 1], [8, 2, 9]]))
    assert asked.tolist() == [[True, True, False], [False, True, False]]


def test_users_are_known_by_their_internal_ids():
    part = rows([[1], [2, 3]], [1, 2], [0, 1], ["u", "v"])
    positives = Positives(SequenceDataset(part, 3, Catalogue(["v", "u"])))
    assert positives.query_user.tolist() == [2, 1]
    has = positives.of_users(torch.tensor([1, 2]), torch.tensor([3, 1]))
    assert has.tolist() == [True, True]
    assert positives.of_users(torch.tensor([1, 2])[:, None], torch.tensor([[1, 2, 3]])).tolist() == [
        [False, True, True],
        [True, False, False],
    ]


def test_what_users_of_queries_have():
    part = rows([[5, 6, 7], [7, 8], [1, 2]], [1, 1, 1], [0, 3, 5], ["u", "u", "v"])
    positives = Positives(SequenceDataset(part, 9))
    assert positives.items_of_queries(torch.tensor([6, 4])).tolist() == [[1, 2, 0, 0], [5, 6, 7, 8]]
    assert positives.items_of_queries(torch.tensor([], dtype=torch.int64)).shape == (0, 1)


def test_who_has_items():
    part = rows([[5, 6], [6, 8], [1]], [1, 1, 1], [0, 2, 4], ["u", "v", "u"])
    positives = Positives(SequenceDataset(part, 9, Catalogue(["v", "u"])))
    assert positives.users_of_items(torch.tensor([6, 9, 1])).tolist() == [[1, 2], [0, 0], [2, 0]]


def test_what_users_avoid_is_refused_but_not_theirs():
    part = rows([[1], [2, 3]], [1, 2], [0, 1], ["u", "v"])
    avoid = torch.tensor([[2, 1], [4, 1]], dtype=torch.int32)  # v, who is 1, does without 1; u without 4
    positives = Positives(SequenceDataset(part, 5, Catalogue(["v", "u"]), avoid))
    refused = positives.of_users(torch.tensor([1, 2])[:, None], torch.arange(1, 6)[None])
    assert refused.tolist() == [[True, True, True, False, False], [True, False, False, True, False]]
    assert positives.items_of_queries(torch.tensor([0, 1])).tolist() == [[1, 0], [2, 3]]


def test_pairs_to_avoid_want_users():
    with pytest.raises(DataError, match=r"users=split\.users"):
        SequenceDataset(rows([[1]], [1], [0], ["u"]), 5, avoid=torch.tensor([[1], [2]]))

from __future__ import annotations

from math import exp

import pytest
import torch
from datasets import Dataset

from seqkd.batches.collators import UNLABELLED, SequenceDataset
from seqkd.catalogue import Catalogue
from seqkd.errors import KnowledgeError
from seqkd.knowledge import Knowledge, Source
from seqkd.knowledge.common_lists import common_lists, labels_of

ITEMS = Catalogue("abcdef")


def knows(name: str, topk: list, scores: list) -> Knowledge:
    tables = {"query_topk": torch.tensor(topk, dtype=torch.int32), "query_scores": torch.tensor(scores)}
    return Knowledge.from_tables(tables, source=Source(name, "r", "s", "train"), catalogue=ITEMS)


def test_union_by_average_probability_and_floor_for_unlisted():
    one = knows("one", [[1, 2, 3]], [[2.0, 1.0, 0.0]])
    two = knows("two", [[1, 4, 5]], [[5.0, 5.0, 1.0]])
    together = common_lists({"one": one, "two": two}, k=3, dtype=torch.float32)
    z1, z2 = exp(2) + exp(1) + 1, 2 * exp(5) + exp(1)
    mass = {1: exp(2) / z1 + exp(5) / z2, 2: exp(1) / z1, 3: 1 / z1, 4: exp(5) / z2, 5: exp(1) / z2}
    wanted = sorted(mass, key=mass.get, reverse=True)[:3]
    assert together["one"].rows("query_topk", torch.tensor([0])).tolist() == [wanted] == [[1, 4, 2]]
    assert together["one"].rows("query_scores", torch.tensor([0])).tolist() == [[2.0, 0.0, 1.0]]  # 4: lowest of one
    assert together["two"].rows("query_scores", torch.tensor([0])).tolist() == [[5.0, 5.0, 1.0]]  # 2: lowest of two


def test_the_label_is_always_listed():
    one = knows("one", [[1, 2, 3], [1, 2, 3]], [[2.0, 1.0, 0.0]] * 2)
    lists = common_lists({"one": one}, k=2, labels=torch.tensor([6, UNLABELLED]))
    assert lists["one"].rows("query_topk", torch.arange(2)).tolist() == [[1, 6], [1, 2]]
    with pytest.raises(KnowledgeError, match="3 labels for 2 queries"):
        common_lists({"one": one}, k=2, labels=torch.zeros(3))


def test_empty_places_stay_empty():
    one = knows("one", [[1, 0, 0]], [[2.0, torch.finfo(torch.float32).min, torch.finfo(torch.float32).min]])
    lists = common_lists({"one": one}, k=2)
    assert lists["one"].rows("query_topk", torch.arange(1)).tolist() == [[1, 0]]
    assert lists["one"].rows("query_scores", torch.arange(1))[0, 1] == torch.finfo(torch.float16).min


def test_labels_of():
    rows = Dataset.from_dict(
        {"user_id": ["u", "v"], "item_ids": [[1, 2, 3], [4]], "first_target": [1, 1], "query_start": [0, 3]}
    )
    assert labels_of(SequenceDataset(rows, 6)).tolist() == [2, 3, UNLABELLED, UNLABELLED]

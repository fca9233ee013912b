"""`windows` and what export asks are tested in test_export.py."""

from __future__ import annotations

import torch
from datasets import Dataset, Features, List, Value

from seqkd.batches.collators import SequenceDataset
from seqkd.catalogue import Catalogue
from seqkd.knowledge.export import export
from seqkd.knowledge.interview import best_items
from seqkd.models.mf import MFConfig, MFModel

from ..tiny import parts, tiny_sasrec, tiny_split


def test_best_items_are_the_exported_lists_and_the_mode_stays():
    split = tiny_split()
    student = tiny_sasrec(split, hidden_dropout_prob=0.9).train()
    told = export(student, split.train, split=split, part="train", tables=("query_topk",), k=5, filter_seen=True)
    assert torch.equal(best_items(student, parts(split)[0], 5), told.table("query_topk"))
    assert student.training


def test_as_many_items_as_there_are_and_empty_places_at_the_end():
    split = tiny_split()
    student, sequences = tiny_sasrec(split), parts(split)[0]
    lists = best_items(student, sequences, 10_000)
    assert lists.shape == (sequences.num_queries, len(split.catalogue))
    history = set(sequences[0].item_ids.tolist())  # the tail query of the first row has seen all of it
    tail = lists[len(sequences[0].item_ids) - sequences[0].first_target]
    assert set(tail.tolist()) == set(range(len(split.catalogue) + 1)) - history
    assert (tail[-len(history) :] == 0).all()


def test_a_known_user_without_a_history_is_asked_too():
    kinds = Features({**dict.fromkeys(["user_id"], Value("string")), "item_ids": List(Value("int32")),
                      "first_target": Value("int32"), "query_start": Value("int64")})  # fmt: skip
    columns = {"user_id": ["u", "v"], "item_ids": [[], [2]], "first_target": [0, 1], "query_start": [0, 1]}
    rows = Dataset.from_dict(columns, features=kinds)
    users = Catalogue(["u", "v"])
    model = MFModel(MFConfig(num_users=2, num_items=3, hidden_size=2))
    model.set_users(users)
    with torch.no_grad():
        model.user_embedding.weight[1:] = torch.tensor([[1.0, 0], [0, 1.0]])
        model.item_embedding.weight[1:] = torch.tensor([[1.0, 3], [2.0, 2], [3.0, 1]])
    assert best_items(model, SequenceDataset(rows, 3, users), 3).tolist() == [[3, 2, 1], [1, 3, 0]]

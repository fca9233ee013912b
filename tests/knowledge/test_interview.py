"""`windows` and what export asks are tested in test_export.py."""

from __future__ import annotations

import torch

from seqkd.knowledge.export import export
from seqkd.knowledge.interview import best_items

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

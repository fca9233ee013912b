from __future__ import annotations

import torch

from seqkd import pipeline
from seqkd.knowledge.export import export
from tests.pipeline.small import untrained


def test_each_fold_is_answered_by_the_member_that_never_saw_it(books):
    members = untrained(books, 0, 1)
    settings = {"split": books.split, "part": "train", "tables": ("query_topk",), "k": 5}
    told = [export(member, books.split.train, **settings) for member in members]
    asked = pipeline.ask(members, books, folds=2, k=5, tables=("query_topk",))
    for row, (items, first, start, _) in enumerate(books.part("train")):
        ids = torch.arange(start, start + len(items) - first + 1)  # tail included
        for table in ("query_topk", "query_scores"):
            assert torch.equal(asked.rows(table, ids), told[row % 2].rows(table, ids))
    assert not torch.equal(told[0].table("query_topk"), told[1].table("query_topk"))


def test_one_member_speaks_for_itself_and_several_are_averaged(books):
    one, two = untrained(books, 0, 1)
    settings = {"tables": ("query_topk",), "k": 40}
    told = [export(member, books.split.train, split=books.split, part="train", **settings) for member in (one, two)]
    alone = pipeline.ask([one], books, folds=1, **settings)
    assert torch.equal(alone.table("query_topk"), told[0].table("query_topk"))
    both = pipeline.ask([one, two], books, folds=1, **settings)
    # by hand for one query: the average of two distributions over the items that are left to recommend
    query = torch.tensor([7])
    average = torch.zeros(41)
    for knowledge in told:
        items, scores = knowledge.rows("query_topk", query)[0], knowledge.rows("query_scores", query)[0].float()
        average.index_add_(0, items[items > 0].long(), scores[items > 0].softmax(0) / 2)
    items = both.rows("query_topk", query)[0].long()
    items = items[items > 0]
    probs = both.rows("query_scores", query)[0][: len(items)].float().softmax(0)
    torch.testing.assert_close(probs, average[items], atol=1e-3, rtol=1e-2)  # scores are kept in half precision

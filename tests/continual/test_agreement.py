"""Several teachers as one."""

from __future__ import annotations

import json
import math

import pytest
import torch

from seqkd.catalogue import Catalogue
from seqkd.continual.agreement import agree
from seqkd.errors import KnowledgeError
from seqkd.knowledge import Knowledge
from seqkd.knowledge.store.source import Source


def said(teacher, items, **tables):
    topk = torch.tensor(items, dtype=torch.int32)
    scores = torch.arange(topk.shape[1], 0, -1).float().expand(topk.shape).contiguous()
    tables = {name: torch.tensor(table, dtype=torch.int32) for name, table in tables.items()}
    source, catalogue = Source(teacher, "r", "s", "train", options={"filter_seen": True}), Catalogue("abcdef")
    return Knowledge.from_tables(
        {"query_topk": topk, "query_scores": scores, **tables}, source=source, catalogue=catalogue
    )


def test_golden_of_items_and_of_users(golden):
    """The release's scores of two teachers; by columns they are rankings of three users for each item."""
    case = json.loads((golden / "ccd_ensemble.json").read_text())
    told = {}
    for name in "AB":
        scores = torch.tensor(case[name])
        items = scores.argsort(dim=1, descending=True) + 1
        users = scores.T.argsort(dim=1, descending=True) + 1
        told[name] = said(name, items.tolist(), item_topk=[[0, 0, 0], *users.tolist()])
    both, expected = agree(told), torch.tensor(case["ensemble"]).sort(dim=1, descending=True)
    found = torch.tensor(case["ensemble"]).gather(1, both.table("query_topk").long() - 1)
    torch.testing.assert_close(found, expected.values)
    ranks = [torch.tensor(case[name]).T.argsort(1, descending=True).argsort(1) for name in "AB"]
    importance = sum((rank + 1.0) ** -0.05 for rank in ranks) / 2  # (I, U)
    users = both.table("item_topk")
    assert users[0].tolist() == [0, 0, 0] and users.dtype == torch.int32
    torch.testing.assert_close(importance.gather(1, users[1:].long() - 1), importance.sort(1, descending=True).values)
    assert both.source.options["importance"] == "power"


def test_labels_of_a_softmax_fall_along_the_common_list():
    """Five teachers of one mind: by CCD's importance alone the first of 200 would weigh 1.3 times the last."""
    together = agree({name: said(name, [[1, 2, 3, 4, 5, 6]]) for name in "abcde"})
    labels = together.table("query_scores").softmax(dim=1)[0]
    assert together.table("query_topk")[0].tolist() == [1, 2, 3, 4, 5, 6]
    assert (labels[:-1] / labels[1:]).tolist() == pytest.approx([math.exp(0.1)] * 5, rel=1e-5)


def test_one_teacher_speaks_for_itself():
    alone = said("a", [[1, 2]])
    assert agree({"a": alone}) is alone


def test_who_is_on_both_lists_comes_first_and_the_short_end_with_nobody():
    """1 is first and third, 2 first and second of three: 2 is ahead."""
    told = {"a": said("a", [[1, 2, 3]]), "b": said("b", [[2, 4, 1]])}
    assert agree(told).table("query_topk")[0, :2].tolist() == [2, 1]
    nobody = [[0, 0]] * 4
    users = {"item_topk": [[0, 0], [2, 0], [1, 2], *nobody]}
    fewer = {"item_topk": [[0, 0], [2, 0], [2, 3], *nobody]}
    told = {"a": said("a", [[1, 2, 3]], **users), "b": said("b", [[2, 4, 1]], **fewer)}
    assert agree(told).table("item_topk").tolist() == [[0, 0], [2, 0], [2, 1], *nobody]


def test_teachers_of_other_blocks_do_not_agree():
    told = {"a": said("a", [[1, 2]]), "b": said("b", [[1, 2], [2, 1]])}
    with pytest.raises(KnowledgeError, match="same queries"):
        agree(told)

from __future__ import annotations

import torch

from seqkd.teaching.batch_entities import distinct_items, distinct_queries

from ..methods.embedding_market import Tables, asked, pairs


def test_queries_come_once():
    student, batch = Tables(), pairs()
    found = distinct_queries(batch, asked(student, batch))
    assert batch["query_ids"][found.rows].tolist() == [1, 2, 4, 5, 7]
    assert torch.equal(found.vectors, student.queries[[1, 2, 4, 5, 7]]) and found.share.tolist() == [1.0] * 5


def test_items_come_once_and_none_is_unlabelled():
    student = Tables()
    assert distinct_items(student, pairs()).rows.tolist() == [1, 2, 3, 6, 8, 9]
    assert distinct_items(student, pairs(negatives=False)).rows.tolist() == [3, 6, 8]
    nothing = {**pairs(negatives=False), "targets": torch.full((6,), -100)}
    assert distinct_items(student, nothing).vectors.shape == (0, 3)


def test_two_sides_weigh_half_each():
    found = distinct_items(Tables(), pairs(), sides=True)
    assert found.rows.tolist() == [3, 6, 8, 1, 2, 6, 9] and found.share.tolist() == [0.5] * 7
    assert distinct_items(Tables(), pairs(negatives=False), sides=True).share.tolist() == [1.0] * 3


def test_a_sample_weighs_as_much_as_all():
    student, batch = Tables(), pairs()
    some = distinct_items(student, batch, sides=True, most=2)
    assert len(some.rows) == 2 and some.share.tolist() == [0.5 * 7 / 2] * 2
    assert torch.equal(some.vectors, student.items[some.rows])
    queries = distinct_queries(batch, asked(student, batch), most=4)
    assert queries.share.tolist() == [5 / 4] * 4 and len(set(queries.rows.tolist())) == 4
    taught = queries.taught(torch.randn(6, 5)).sample(2)
    assert taught.share.tolist() == [5 / 4 * 2] * 2


def test_a_teachers_row_of_zeros_says_nothing_and_half_precision_is_widened():
    student, batch = Tables(), pairs()
    table = torch.randn(6, 5).half()
    table[4] = 0  # the place of query 1
    found = distinct_queries(batch, asked(student, batch)).taught(table)
    assert batch["query_ids"][found.rows].tolist() == [2, 4, 5, 7]
    assert found.teacher.dtype == found.student.dtype == torch.float32
    assert torch.equal(found.teacher, table[found.rows].float())

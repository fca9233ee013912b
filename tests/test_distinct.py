from __future__ import annotations

import torch

from seqkd.distinct import first_of_each, share_of_each, spread


def test_first_of_each_in_the_order_of_the_ids():
    ids = torch.tensor([7, 3, 7, 9, 3, 1])
    assert first_of_each(ids).tolist() == [5, 1, 0, 3]  # of 1, 3, 7, 9
    assert first_of_each(ids[:0]).tolist() == []


def test_every_distinct_query_weighs_the_same():
    batch = {"query_ids": torch.tensor([7, 3, 7, 7])}
    assert spread(torch.tensor([2.0, 6.0]), batch).mean() == 4.0  # 3 costs 2, 7 costs 6
    assert share_of_each({"query_ids": torch.tensor([4, 2, 9])}).tolist() == [1, 1, 1]


def test_micro_batches_carry_the_step():
    step, losses = torch.tensor([7, 3, 7, 9, 7, 3]), {7: 6.0, 3: 2.0, 9: 1.0}
    total = 0.0
    for ids in step.split(2):
        distinct = ids.unique().tolist()
        batch = {"query_ids": ids, "step_query_ids": step}
        total += spread(torch.tensor([losses[i] for i in distinct]), batch).sum() / len(step)
    torch.testing.assert_close(total, torch.tensor(3.0))

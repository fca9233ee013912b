from __future__ import annotations

import torch

from seqkd.functional.distinct import first_of_each, share_of_each, spread


def test_first_of_each_in_the_order_of_the_ids():
    ids = torch.tensor([7, 3, 7, 9, 3, 1])
    assert first_of_each(ids).tolist() == [5, 1, 0, 3]  # of 1, 3, 7, 9
    assert first_of_each(ids[:0]).tolist() == []


def test_every_distinct_query_weighs_the_same():
    batch = {"query_ids": torch.tensor([7, 3, 7, 7])}
    assert spread(torch.tensor([2.0, 6.0]), torch.tensor([1, 0]), batch).mean() == 4.0  # 3 costs 2, 7 costs 6
    assert share_of_each({"query_ids": torch.tensor([4, 2, 9])}).tolist() == [1, 1, 1]


def test_micro_batches_carry_the_step():
    step, losses = torch.tensor([7, 3, 7, 9, 7, 3]), {7: 6.0, 3: 2.0, 9: 1.0}
    total = 0.0
    for ids in step.split(2):
        rows = first_of_each(ids)
        batch = {"query_ids": ids, "step_query_ids": step}
        total += spread(torch.tensor([losses[i] for i in ids[rows].tolist()]), rows, batch).sum() / len(step)
    torch.testing.assert_close(total, torch.tensor(3.0))


def test_those_drawn_stand_for_all():
    ids = torch.tensor([7, 3, 7, 9, 3, 1])
    torch.manual_seed(0)
    counts = torch.zeros(10)
    for _ in range(3000):
        rows = first_of_each(ids, 2)
        assert len(rows) == 2 and set(rows.tolist()) < {5, 1, 0, 3}
        counts[ids[rows]] += 1
    assert counts[[1, 3, 7, 9]].div(3000).sub(0.5).abs().max() < 0.03
    # 1 costs 8, 7 costs 2: the mean over the four distinct is estimated by (8 + 2) / 2
    assert spread(torch.tensor([8.0, 2.0]), torch.tensor([5, 0]), {"query_ids": ids}).mean() == 5.0
    assert first_of_each(ids, 4).tolist() == [5, 1, 0, 3]

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from seqkd.functional.rank_sampling import by_position, by_weight, is_listed, log_weights, repeats, uniform_outside


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def nothing_taken(rows, entities):
    return torch.zeros_like(entities, dtype=torch.bool)


def test_weights_are_the_golden_ones(golden):
    sampling = json.loads((golden / "rrd.json").read_text())["sampling"]
    weights = log_weights(sampling["list_length"], sampling["T"]).exp()
    torch.testing.assert_close(weights[:12], torch.tensor(sampling["unnormalised_weights_first_12"]))
    assert weights[499].item() == pytest.approx(sampling["weight_index_499_float32"], rel=1e-4)


def test_position_draws_follow_the_law():
    """One of three by weights 1, e^-1/2, e^-1; then two: the chance of a pair is a sum over both orders."""
    lists = torch.tensor([[30, 10, 20]]).expand(60_000, -1)
    w = np.exp(-np.arange(3) / 2)
    p = w / w.sum()
    one = by_position(lists, 1, 2.0, seeded()).squeeze(1)
    shares = [(one == item).double().mean().item() for item in (30, 10, 20)]
    np.testing.assert_allclose(shares, p, atol=0.006)
    two = by_position(lists, 2, 2.0, seeded(1))
    first_two = ((two[:, 0] == 30) & (two[:, 1] == 10)).double().mean().item()
    assert first_two == pytest.approx(p[0] * p[1] / (1 - p[0]) + p[1] * p[0] / (1 - p[1]), abs=0.006)


def test_position_draws_keep_the_order_of_the_list():
    lists = torch.stack([torch.randperm(500, generator=seeded(row)) + 1 for row in range(64)])
    drawn = by_position(lists, 40, 10.0, seeded())
    ranks = (drawn[:, :, None] == lists[:, None, :]).int().argmax(dim=2)
    assert (ranks.diff(dim=1) > 0).all()
    assert 50 < ranks[:, -1].double().median() < 75  # spec 2.5: the deepest rank is 61 in the median
    assert (ranks < 40).double().mean().item() == pytest.approx(0.88, abs=0.02)  # and 88 % of the top 40 stay


def test_draws_follow_weights_of_each_list():
    """Two of three by weights 1, 2, 5 of the one list and 5, 1, 1 of the other: the chance that a place is left out."""
    lists = torch.tensor([[7, 8, 9], [1, 2, 3]]).repeat(40_000, 1)
    weights = np.array([[1.0, 2, 5], [5, 1, 1]])
    drawn = by_weight(lists, torch.tensor(weights).log().float().repeat(40_000, 1), 2, seeded())
    assert (drawn.diff(dim=1) > 0).all()
    for row, w in enumerate(weights):
        p = w / w.sum()
        for left in range(3):
            a, b = (place for place in range(3) if place != left)
            chance = p[a] * p[b] / (1 - p[a]) + p[b] * p[a] / (1 - p[b])
            share = (drawn[row::2] != left).all(dim=1).double().mean().item()
            assert share == pytest.approx(chance, abs=0.008)


def test_weights_far_apart_are_an_order():
    drawn = by_weight(torch.ones(500, 4), torch.tensor([-1e3, 1e3, 0.0, 1e4]), 2, seeded())
    assert (drawn == torch.tensor([1, 3])).all()


def test_short_lists_end_in_empty_places():
    lists = torch.tensor([[5, 6, 0, 0, 0], [1, 2, 3, 4, 5]])
    drawn = by_position(lists, 3, 1.0, seeded())
    assert drawn[0].tolist() == [5, 6, 0] and (drawn[1] > 0).all()
    assert by_position(lists[:, :2], 3, 1.0, seeded()).shape == (2, 2)
    assert by_weight(lists, torch.tensor([0.0, 0, 9, 9, 9]), 2, seeded())[0].tolist() == [0, 1]


def test_uniform_draws_are_distinct_outside_and_uniform():
    lists = torch.tensor([[1, 2, 0]]).expand(20_000, -1)
    rows = torch.arange(20_000)
    drawn = uniform_outside(rows, lists, 3, 10, lambda _, e: e == 7, seeded())
    ascending = drawn.sort(dim=1).values
    assert (ascending.diff(dim=1) > 0).all()
    counts = torch.bincount(drawn.flatten().long(), minlength=11)
    assert counts[[0, 1, 2, 7]].tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(counts[[3, 4, 5, 6, 8, 9, 10]] / 60_000, 1 / 7, atol=0.006)


def test_many_entities_few_refused():
    lists = torch.randint(1, 5001, (300, 50), generator=seeded(1))
    had = (torch.arange(300) * 7 % 5000 + 1)[:, None]
    drawn = uniform_outside(torch.arange(300), lists, 40, 5000, lambda rows, e: e == had[rows], seeded())
    assert drawn.dtype == torch.int32 and drawn.min() >= 1 and drawn.max() <= 5000
    for row in range(300):
        assert len(set(drawn[row].tolist())) == 40
        assert not set(drawn[row].tolist()) & {*lists[row].tolist(), had[row].item()}
    assert torch.equal(
        drawn, uniform_outside(torch.arange(300), lists, 40, 5000, lambda rows, e: e == had[rows], seeded())
    )


def test_rows_that_fall_short_draw_again_up_to_everything():
    """All but 50 of 1,000 are refused in row 0: it gets 40 of these; row 1 has 5 left and gets them all."""
    left = {0: 950, 1: 995}
    taken = lambda rows, e: e <= torch.tensor([left[int(r)] for r in rows])[:, None]  # noqa: E731
    drawn = uniform_outside(torch.arange(2), torch.zeros(2, 1, dtype=torch.int32), 40, 1000, taken, seeded())
    assert len(set(drawn[0].tolist())) == 40 and drawn[0].min() > 950
    assert sorted(drawn[1].tolist()) == [0] * 35 + [996, 997, 998, 999, 1000]


def test_repeats_and_is_listed():
    assert repeats(torch.tensor([[4, 2, 4, 4], [1, 2, 3, 4]])).int().tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert is_listed(torch.tensor([[4, 9], [9, 1]]), torch.tensor([[9, 3], [7, 8]])).tolist() == [
        [False, True],
        [False, False],
    ]

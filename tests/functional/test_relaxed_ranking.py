from __future__ import annotations

import json
from math import log

import pytest
import torch

from seqkd.functional.relaxed_ranking import _by_logs, _by_sums, relaxed_ranking

from ..methods.tiny_rankings import near, slow_relaxed_ranking, tensor


def test_golden(golden):
    case = json.loads((golden / "rrd.json").read_text())["cases"][0]
    scores = [tensor(case["inputs"][name]).requires_grad_() for name in ("S1", "S2")]
    losses = relaxed_ranking(*scores)
    near(losses, case["expected"]["per_user_loss"])
    losses.sum().backward()
    near(scores[0].grad, case["expected"]["grad_S1"])
    near(scores[1].grad, case["expected"]["grad_S2"])
    single = relaxed_ranking(*(s.detach().float() for s in scores)).sum()
    assert single.item() == pytest.approx(case["expected"]["loss_float32"], rel=1e-6)


def test_golden_embeddings(golden):
    case = json.loads((golden / "rrd.json").read_text())["cases"][0]["embedding_case"]
    inputs, expected = case["inputs"], case["expected"]
    users, items = (tensor(inputs[name]).requires_grad_() for name in ("user_emb", "item_emb"))
    queries = users[inputs["users"]]
    scores = [
        torch.einsum("qd,qcd->qc", queries, items[torch.tensor(inputs[name])])
        for name in ("interesting_items", "uninteresting_items")
    ]
    loss = relaxed_ranking(*scores).sum()
    near(loss, expected["loss"])
    loss.backward()
    near(users.grad, expected["grad_user_emb"])
    near(items.grad, expected["grad_item_emb"])


def test_is_the_paper_s_equation():
    torch.manual_seed(0)
    interesting, uninteresting = torch.randn(3, 5).double(), torch.randn(3, 4).double()
    slow = [slow_relaxed_ranking(a.numpy(), z.numpy()) for a, z in zip(interesting, uninteresting, strict=True)]
    near(relaxed_ranking(interesting, uninteresting), slow)


def test_gradient_is_the_derivative():
    torch.manual_seed(0)
    scores = [torch.randn(2, n, dtype=torch.float64, requires_grad=True) for n in (4, 3)]
    empty = {"empty_interesting": torch.tensor([[False] * 4, [False, True, False, True]])}
    assert torch.autograd.gradcheck(lambda a, z: relaxed_ranking(a, z, **empty), scores)


def test_large_scores_overflow_nothing():
    """At +100 the authors' form is inf in float32; three equal scores cost log 3 + log 2 with one left over."""
    same = torch.full((1, 2), 100.0), torch.full((1, 1), 100.0)
    assert relaxed_ranking(*same).item() == pytest.approx(log(6), abs=1e-4)
    a = torch.tensor([[1e3, -1e3, 0.0]], requires_grad=True)
    z = torch.tensor([[-1e3, 1e3]], requires_grad=True)
    loss = relaxed_ranking(a, z)
    assert loss.item() == pytest.approx(log(2) + 2000 + 1000, rel=1e-6)
    loss.sum().backward()
    torch.testing.assert_close(
        a.grad, torch.tensor([[-0.5, -1.0, -1.0]]), atol=1e-4, rtol=0
    )  # what stands too low is pushed, unclamped
    torch.testing.assert_close(z.grad, torch.tensor([[0.0, 2.5]]), atol=1e-4, rtol=0)


def test_sums_and_logs_agree_where_sums_can_tell():
    torch.manual_seed(0)
    a, z = 20 * torch.randn(6, 5), 20 * torch.randn(6, 4)
    empty = torch.rand(6, 5) < 0.3
    a = a.masked_fill(empty, torch.finfo(a.dtype).min / 2)
    for fast, slow in zip(_by_sums(a + 1e3, z + 1e3, empty), _by_logs(a + 1e3, z + 1e3, empty), strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-3)  # float32 at 1,000 knows four decimals


@pytest.mark.parametrize("gap", [60.0, 80.0, 100.0, 1e3])
def test_one_row_far_apart_leaves_no_other_wrong(gap):
    """Two items `gap` below everything that was ranked before them are still ranked against each other."""
    a = torch.tensor([[gap, 0.0], [0.0, 0.0]], requires_grad=True)
    z = torch.zeros(2, 1, requires_grad=True)
    losses = relaxed_ranking(a, z)
    assert losses.tolist() == pytest.approx([log(2), log(6)], rel=1e-5)
    losses.sum().backward()
    torch.testing.assert_close(a.grad, torch.tensor([[0.0, -1 / 2], [-2 / 3, -1 / 6]]), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.grad, torch.tensor([[1 / 2], [5 / 6]]), atol=1e-5, rtol=0)
    assert (_by_sums(a.detach(), z.detach(), torch.zeros(2, 2, dtype=torch.bool)) is None) == (gap > 70)


def test_empty_places_are_not_there():
    torch.manual_seed(0)
    a, z = torch.randn(1, 3), torch.randn(1, 2)
    a_long, z_long = (torch.cat([s, torch.full((1, 2), 9.0)], dim=1).requires_grad_() for s in (a, z))
    empty = torch.tensor([[False] * 3 + [True] * 2])
    loss = relaxed_ranking(a_long, z_long, empty_interesting=empty, empty_uninteresting=empty[:, 1:])
    torch.testing.assert_close(loss, relaxed_ranking(a, z))
    loss.sum().backward()
    assert not a_long.grad[:, 3:].any() and not z_long.grad[:, 2:].any()
    nothing = torch.ones(1, 3, dtype=torch.bool)
    assert relaxed_ranking(a, z, empty_interesting=nothing).tolist() == [0.0]
    alone = relaxed_ranking(a, z, empty_uninteresting=nothing[:, :2])
    torch.testing.assert_close(alone, relaxed_ranking(a, z - 1e4))


def test_half_precision_is_computed_in_float32():
    scores = torch.full((1, 3), 40.0, dtype=torch.float16)
    assert relaxed_ranking(scores, scores).dtype == torch.float32


@pytest.fixture
def ccd(golden):
    cases = json.loads((golden / "ccd_relaxed_ranking_loss.json").read_text())["cases"]
    return {case["name"]: case for case in cases}


def scored(case, most=None):
    scores = [tensor(case[name]) for name in ("S1_interesting_in_teacher_order", "S2_uninteresting")]
    scores = [(part if most is None else part.clamp(max=most)).requires_grad_() for part in scores]
    losses = relaxed_ranking(*scores)
    losses.sum().backward()
    return losses.sum().item(), [part.grad for part in scores]


@pytest.mark.parametrize("name", ["small", "hand_checkable"])
def test_golden_ccd(ccd, name):
    """The release sums over rows, adds 1e-8 to each sum of exponentials and works in float32."""
    loss, grads = scored(ccd[name])
    assert loss == pytest.approx(ccd[name]["loss_sum_over_rows"], rel=1e-6)
    for grad, side in zip(grads, ("grad_S1", "grad_S2"), strict=True):
        if side in ccd[name]:
            torch.testing.assert_close(grad, tensor(ccd[name][side]), rtol=0, atol=1e-6)


def test_golden_ccd_is_clamped_and_ours_is_not(ccd):
    """Its scores end at 10, and those above are not taught at all: the best are never ranked among each other."""
    case = ccd["clamped_above_10"]
    at_ten, grads = scored(case, most=10.0)
    assert at_ten == pytest.approx(case["loss_sum_over_rows"], rel=1e-6)
    ours, free = scored(case)
    assert ours != pytest.approx(case["loss_sum_over_rows"], rel=1e-3)
    for grad, whole, side, scores in zip(
        grads, free, ("grad_S1", "grad_S2"), ("S1_interesting_in_teacher_order", "S2_uninteresting"), strict=True
    ):
        released, above = tensor(case[side]), tensor(case[scores]) > 10
        torch.testing.assert_close(grad[~above], released[~above], rtol=0, atol=2e-6)
        assert not released[above].any() and (whole[above] != 0).all()
    assert any((tensor(case[scores]) > 10).any() for scores in ("S1_interesting_in_teacher_order", "S2_uninteresting"))

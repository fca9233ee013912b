"""Losses: golden vectors, slow loops from the equations, gradients, large logits, half precision, memory."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch

from seqkd.functional import losses

GOLDEN = Path(os.environ.get("SEQKD_GOLDEN", Path(__file__).parents[1] / "golden"))
FILES = sorted(GOLDEN.glob("gsasrec_gbce*.json"))


def problem(dtype=torch.float32, queries=7, items=11, width=4, lists=3, scale=1.0):
    torch.manual_seed(0)
    states = (torch.randn(queries, width, dtype=dtype) * scale).requires_grad_()
    table = torch.randn(items + 1, width, dtype=dtype).requires_grad_()
    ids = torch.stack([torch.randperm(items)[:lists] + 1 for _ in range(queries)])
    return states, table, ids


def slow_log_probs(states, table, ids, first=1):
    """The definition, one query and one item at a time."""
    rows = []
    for state, row in zip(states, ids, strict=True):
        logits = [state @ table[i] for i in range(first, len(table))]
        normaliser = torch.logsumexp(torch.stack(logits), 0)
        rows.append(torch.stack([state @ table[i] - normaliser for i in row.tolist()]))
    return torch.stack(rows)


# ---- the softmax over the catalogue -------------------------------------------------------------------------------


@pytest.mark.parametrize("mask_padding", [True, False])
@pytest.mark.parametrize("chunk, keep", [(10**9, 10**9), (23, 10**9), (23, 0), (1, 0)])
def test_log_probs_and_gradients_equal_a_slow_loop(chunk, keep, mask_padding):
    states, table, ids = problem(torch.float64)
    upstream = torch.randn(ids.shape, dtype=torch.float64)  # another weight for every query and item
    expected = slow_log_probs(states, table, ids, first=1 if mask_padding else 0)
    wanted = torch.autograd.grad((expected * upstream).sum(), (states, table))
    got = losses.catalogue_log_probs(states, table, ids, mask_padding=mask_padding, chunk_size=chunk, keep_size=keep)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    for a, b in zip(torch.autograd.grad((got * upstream).sum(), (states, table)), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("keep", [10**9, 0])
def test_gradcheck(keep):
    states, table, ids = problem(torch.float64, queries=3, items=5)
    assert torch.autograd.gradcheck(
        lambda q, e: losses.catalogue_log_probs(q, e, ids, chunk_size=11, keep_size=keep), (states, table)
    )


def test_backward_twice_gives_the_same_gradient():
    states, table, ids = problem()
    loss = losses.softmax(states, table, ids[:, 0]).sum()
    first = torch.autograd.grad(loss, table, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(loss, table)[0])


def test_padding_gets_no_gradient_and_no_probability():
    states, table, ids = problem()
    with torch.no_grad():
        table[0] = 1e4  # would win every softmax
    loss = losses.softmax(states, table, ids[:, 0])
    assert loss.max() < 20
    loss.sum().backward()
    assert not table.grad[0].any() and table.grad[1:].any()


def test_unmasked_padding_is_one_more_item():
    states, table, ids = problem()
    expected = torch.nn.functional.cross_entropy(states @ table.T, ids[:, 0], reduction="none")
    torch.testing.assert_close(losses.softmax(states, table, ids[:, 0], mask_padding=False), expected)


def test_soft_cross_entropy_of_a_one_hot_teacher_is_the_hard_loss():
    states, table, ids = problem()
    probs = torch.tensor([1.0, 0.0, 0.0]).expand(len(ids), 3)
    torch.testing.assert_close(
        losses.soft_cross_entropy(states, table, ids, probs), losses.softmax(states, table, ids[:, 0])
    )


def test_soft_cross_entropy_by_hand():
    table = torch.tensor([[5.0], [0.0], [math.log(2)], [math.log(5)]])  # probabilities 1/8, 2/8, 5/8 for the query 1
    top_items, top_probs = torch.tensor([[3, 1]]), torch.tensor([[0.75, 0.25]])
    expected = 0.75 * math.log(8 / 5) + 0.25 * math.log(8)
    got = losses.soft_cross_entropy(torch.ones(1, 1), table, top_items, top_probs)
    assert got.item() == pytest.approx(expected, abs=1e-6)


def test_a_filled_up_list_counts_only_its_items():
    states, table, ids = problem()
    short = ids.clone()
    short[:, 2] = 0
    full = losses.catalogue_log_probs(states, table, ids)
    got = losses.catalogue_log_probs(states, table, short)
    assert torch.equal(got[:, :2], full[:, :2]) and not got[:, 2].any()
    got[:, 2].sum().backward()
    assert not table.grad.any() and not states.grad.any()


def test_no_queries():
    states, table, ids = problem(queries=1)
    losses.catalogue_log_probs(states[:0], table, ids[:0]).sum().backward()
    assert not table.grad.any()


@pytest.mark.parametrize("keep", [10**9, 0])
def test_softmax_is_finite_for_huge_logits(keep):
    states, table, ids = problem(scale=1e4)
    log_probs = losses.catalogue_log_probs(states, table, ids, keep_size=keep)
    log_probs.sum().backward()
    assert log_probs.isfinite().all() and states.grad.isfinite().all() and table.grad.isfinite().all()


def test_softmax_under_bfloat16_autocast_is_float32():
    states, table, ids = problem()
    expected = losses.softmax(states.bfloat16().float(), table, ids[:, 0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = losses.softmax(states.bfloat16(), table, ids[:, 0])
        got.sum().backward()
    assert got.dtype == torch.float32 and torch.equal(got, expected)
    assert table.grad.dtype == torch.float32 and table.grad.isfinite().all()


def test_softmax_memory_does_not_grow_with_queries_times_items():
    """No tensor made on the way is larger than the chunk or the table."""
    states, table, ids = problem(queries=400, items=5000, lists=1)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            tensors = [t for t in (out if isinstance(out, (tuple, list)) else [out]) if isinstance(t, torch.Tensor)]
            largest = max([largest, *(t.numel() for t in tensors)])
            return out

    with Watch():
        losses.catalogue_log_probs(states, table, ids, chunk_size=50_000, keep_size=0).sum().backward()
    assert largest <= 50_000  # 400 x 5000 would be 2 000 000


# ---- negatives ----------------------------------------------------------------------------------------------------


def test_sample_by_count_follows_the_counts():
    torch.manual_seed(0)
    negatives, log_q = losses.sample_by_count(torch.tensor([99.0, 0.0, 2.0, 5.0]), 30_000)
    torch.testing.assert_close(log_q.exp(), torch.tensor([1.0, 1 / 10, 3 / 10, 6 / 10]))
    shares = torch.bincount(negatives, minlength=4) / 30_000
    assert shares[0] == 0
    torch.testing.assert_close(shares[1:], torch.tensor([0.1, 0.3, 0.6]), atol=0.01, rtol=0)


def test_sample_uniform_never_draws_the_target_and_all_others():
    torch.manual_seed(0)
    targets = torch.tensor([1, 3, 5])
    draws = losses.sample_uniform(targets, 5, 2000)
    for target, row in zip(targets.tolist(), draws, strict=True):
        counts = torch.bincount(row, minlength=6)
        assert counts[0] == 0 and counts[target] == 0
        assert all(400 < counts[i] < 600 for i in range(1, 6) if i != target)


def test_sampled_softmax_by_hand_with_an_accidental_hit():
    # N = 2, negatives 2 and 3 with q = 1/4 and 1/2, target 3: item 3 is masked, item 2 stands for 1 / (2/4) = 2 items.
    log_q = torch.tensor([0.0, math.log(1 / 4), math.log(1 / 4), math.log(1 / 2)])
    got = losses.sampled_softmax(
        torch.tensor([0.3]), torch.tensor([[1.0, 50.0]]), torch.tensor([3]), torch.tensor([2, 3]), log_q
    )
    assert got.item() == pytest.approx(math.log(math.exp(0.3) + 2 * math.exp(1.0)) - 0.3, abs=1e-6)


def test_sampled_softmax_of_accidental_hits_alone_is_zero():
    got = losses.sampled_softmax(
        torch.tensor([0.3]), torch.zeros(1, 2), torch.tensor([1]), torch.tensor([1, 1]), torch.zeros(3)
    )
    assert got.item() == pytest.approx(0.0, abs=1e-6)


def test_sampled_softmax_tends_to_the_full_softmax():
    torch.manual_seed(0)
    states, table, ids = problem(torch.float64)
    negatives, log_q = losses.sample_by_count(torch.arange(12), 200_000)
    with torch.no_grad():
        logits = states @ table.T
        positive = logits.gather(1, ids[:, :1]).squeeze(1)
        got = losses.sampled_softmax(positive, logits[:, negatives], ids[:, 0], negatives, log_q)
        torch.testing.assert_close(got, losses.softmax(states, table, ids[:, 0]), atol=0.02, rtol=0)


# ---- pointwise and pairwise ---------------------------------------------------------------------------------------


def test_golden_files_are_there():
    assert FILES, f"no gsasrec_gbce*.json in {GOLDEN}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_gbce(path):
    case = json.loads(path.read_text())
    for dtype in (torch.float32, torch.float64):
        logits = torch.tensor(case["inputs"]["logits"], dtype=dtype)  # (B, H, 1 + K)
        mask = torch.tensor(case["inputs"]["mask"], dtype=dtype)  # (B, H)
        for name, expected in case["expected"].items():
            setting = dict(part.split("=") for part in name.split(","))
            assert int(setting["K"]) == logits.shape[-1] - 1
            flat = logits.flatten(0, 1)
            got = losses.gbce(flat[:, 0], flat[:, 1:], num_items=int(setting["n_items"]), t=float(setting["t"]))
            mean = (got * mask.flatten()).sum() / mask.sum()
            assert mean.item() == pytest.approx(expected["loss"], abs=1e-6), name


def test_bce_bpr_by_hand():
    positive, negatives = torch.tensor([0.0]), torch.tensor([[0.0, math.log(3)]])  # sigmoids 1/2, 1/2, 3/4
    mean = (math.log(2) + math.log(4)) / 2
    assert losses.bce(positive, negatives).item() == pytest.approx(math.log(2) + mean, abs=1e-6)
    assert losses.bpr(positive, negatives).item() == pytest.approx(mean, abs=1e-6)


def test_gbce_without_calibration_is_bce():
    torch.manual_seed(0)
    positive, negatives = torch.randn(5), torch.randn(5, 3)
    plain = torch.cat([-positive[:, None], negatives], dim=1)
    expected = torch.nn.functional.softplus(plain).mean(1)
    torch.testing.assert_close(losses.gbce(positive, negatives, num_items=50, t=0.0), expected)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_losses_are_finite_at_ten_thousand(sign, dtype):
    positive = torch.full((2,), 1e4 * sign, dtype=dtype, requires_grad=True)
    negatives = torch.full((2, 3), -1e4 * sign, dtype=dtype, requires_grad=True)
    targets, drawn, log_q = torch.tensor([1, 2]), torch.tensor([2, 3, 4]), torch.full((5,), -1.0)
    values = [
        losses.bce(positive, negatives),
        losses.gbce(positive, negatives, num_items=5, t=0.75),
        losses.bpr(positive, negatives),
        losses.sampled_softmax(positive, negatives, targets, drawn, log_q),
    ]
    total = torch.stack(values)
    total.sum().backward()
    assert total.isfinite().all() and total.dtype == torch.float32
    assert positive.grad.isfinite().all() and negatives.grad.isfinite().all()


def test_hinge_by_hand():
    positive = torch.tensor([1.0, 0.0], requires_grad=True)
    loss = losses.hinge(positive, torch.tensor([[0.2, 0.9, 3.0], [-2.0, -1.0, -0.5]]), margin=0.5)
    assert loss.tolist() == pytest.approx([(0 + 0.4 + 2.5) / 3, 0.0])
    loss.sum().backward()
    assert positive.grad.tolist() == pytest.approx([-2 / 3, 0.0])  # two of three negatives violate the margin


def test_bpr_golden_ccd_is_clamped_and_ours_is_not(golden):
    """When CCD generates a student, sigma ends at 1e-4 and 0.9999: far on the wrong side nothing pushes any more."""
    case = json.loads((golden / "ccd_misc.json").read_text())["kd_cf_clamp"]
    margins = torch.tensor(case["margin"], dtype=torch.float64, requires_grad=True)
    losses_ = losses.bpr(margins, torch.zeros(3, 1, dtype=torch.float64))
    assert losses_[0].item() == pytest.approx(case["per_pair_loss"][0], abs=1e-7)
    clamped = -margins.sigmoid().clamp(1e-4, 0.9999).log()
    torch.testing.assert_close(clamped, torch.tensor(case["per_pair_loss"]).double(), rtol=1e-5, atol=1e-6)
    assert losses_[2].item() == pytest.approx(40) and losses_[1].item() < 1e-16
    losses_.sum().backward()
    assert margins.grad[2].item() == pytest.approx(-1.0)

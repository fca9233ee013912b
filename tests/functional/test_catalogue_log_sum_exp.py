from __future__ import annotations

from itertools import combinations

import pytest
import torch

from seqkd.functional.catalogue_log_sum_exp import log_sum_exp_without, sampled_log_sum_exp_without

EXCLUDED = torch.tensor([[3, 1, 0, 3], [0, 0, 0, 0], [1, 2, 4, 6], [5, 0, 0, 2]])


def inputs(scale: float = 1.0, dtype=torch.float64):
    torch.manual_seed(0)
    queries, items = torch.randn(4, 3, dtype=dtype) * scale, torch.randn(8, 3, dtype=dtype)
    return queries.requires_grad_(), items.requires_grad_()


def slow(queries, items):
    """Each sum from the scores of what is left, in a list."""
    rows = []
    for query, excluded in zip(queries, EXCLUDED.tolist(), strict=True):
        left = [query @ items[item] for item in range(1, len(items)) if item not in excluded]
        rows.append(torch.stack(left).logsumexp(0))
    return torch.stack(rows)


@pytest.mark.parametrize("keep", [0, 10**6])
@pytest.mark.parametrize("chunk", [1, 17, None])
def test_values_and_gradients_match_a_slow_loop(chunk, keep):
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    queries, items = inputs()
    expected = slow(queries, items)
    grads = torch.autograd.grad(expected @ weights, [queries, items])
    rest = log_sum_exp_without(queries, items, EXCLUDED, chunk_size=chunk, keep_size=keep)
    torch.testing.assert_close(rest, expected)
    for ours, theirs in zip(torch.autograd.grad(rest @ weights, [queries, items]), grads, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not torch.autograd.grad(log_sum_exp_without(queries, items, EXCLUDED).sum(), items)[0][0].any()


@pytest.mark.parametrize("keep", [0, 10**6])
def test_large_scores_and_an_empty_sum(keep):
    queries, items = inputs(1e3, torch.float32)
    rest = log_sum_exp_without(queries, items, EXCLUDED, keep_size=keep)
    torch.testing.assert_close(rest, slow(queries, items))
    every = torch.arange(1, 8).expand(4, -1)
    empty = log_sum_exp_without(queries, items, every, keep_size=keep)
    assert (empty < -1e38).all() and empty.isfinite().all()
    (rest + empty).sum().backward()
    grads = queries.grad.clone(), items.grad.clone()
    queries.grad, items.grad = None, None
    log_sum_exp_without(queries, items, EXCLUDED).sum().backward()
    assert all(torch.equal(a, b.grad) and a.isfinite().all() for a, b in zip(grads, (queries, items), strict=True))


def test_half_precision_is_summed_in_float32():
    queries, items = inputs(dtype=torch.float32)
    rest = log_sum_exp_without(queries.bfloat16(), items.bfloat16(), EXCLUDED)
    assert rest.dtype == torch.float32
    rest.sum().backward()
    assert queries.grad.isfinite().all()


def test_a_sample_of_all_is_the_whole():
    queries, items = inputs()
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    expected = log_sum_exp_without(queries, items, EXCLUDED)
    for most in (7, 100):
        rest = sampled_log_sum_exp_without(queries, items, EXCLUDED, most)
        torch.testing.assert_close(rest, expected)
        for ours, theirs in zip(
            torch.autograd.grad(rest @ weights, [queries, items]),
            torch.autograd.grad(expected @ weights, [queries, items], retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(ours, theirs)


def test_the_sum_over_all_samples_is_right_in_the_mean(monkeypatch):
    queries, items = inputs()
    sums = []
    for drawn in combinations(range(7), 3):
        order = torch.tensor([*drawn, *(set(range(7)) - set(drawn))])
        monkeypatch.setattr(torch, "randperm", lambda count, device, order=order: order)
        sums.append(sampled_log_sum_exp_without(queries, items, EXCLUDED, 3).exp())
    assert len(sums) == 35
    mean = torch.stack(sums).mean(0)
    torch.testing.assert_close(mean, log_sum_exp_without(queries, items, EXCLUDED).exp())

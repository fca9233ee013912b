from __future__ import annotations

from math import exp, log

import pytest
import torch

from seqkd.batches.edges import Neighbours
from seqkd.teaching.lwc_contrast import NeighbourContrast, Pairs, Side, contrast, estimate

KNOWN, WIDTH = 12, 4
OWNERS = torch.tensor([1, 1, 1, 3, 3, 4, 5, 5])
OTHERS = torch.tensor([2, 5, 9, 1, 12, 4, 7, 8])
LISTS = {1: [2, 5, 9], 2: [], 3: [1, 12], 4: [4], 5: [7, 8]}


def drawn_from(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def neighbours() -> Neighbours:
    return Neighbours.of(OWNERS, OTHERS, 5)


def slow(old, current, near):
    """-(sum over N of the log of a softmax share) / |N|, over everybody from 1 on."""
    scores = [sum(a * b for a, b in zip(old, row, strict=True)) for row in current.tolist()]
    total = sum(exp(score) for score in scores[1:])
    return -sum(log(exp(scores[n]) / total) for n in near) / max(len(near), 1)


def sides(ids, layers=2, extra=3):
    old, now = drawn_from(0, layers, 6, WIDTH), [drawn_from(9, 6, WIDTH)] * layers
    current = [drawn_from(1 + layer, KNOWN + 1 + extra, WIDTH).requires_grad_() for layer in range(layers)]
    return Side.of(ids, old, now), Side.of(ids, drawn_from(5, layers, KNOWN + 1, WIDTH), current), current


def test_pairs_are_the_lists():
    pairs = Pairs.of(neighbours(), torch.tensor([5, 2, 1]))
    assert pairs.row.tolist() == [0, 0, 2, 2, 2] and pairs.neighbour.tolist() == [7, 8, 2, 5, 9]
    assert pairs.degree.tolist() == [2, 0, 3]


def test_each_contrast_is_the_equation():
    ids, old, current = torch.tensor([1, 2, 3, 4, 5]), drawn_from(0, 5, WIDTH), drawn_from(1, KNOWN + 1, WIDTH)
    losses = contrast(old, current, Pairs.of(neighbours(), ids))
    expected = [slow(row, current, LISTS[i]) for i, row in enumerate(old.tolist(), 1)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-12) and losses[1] == 0


def test_the_mean_over_entities_and_layers():
    """Repeated ids count once, new ones and padding not at all, and who has no neighbours counts as 0."""
    side, others, current = sides(torch.tensor([3, 0, 1, 3, 17, 2]))
    assert side.ids.tolist() == [1, 2, 3] and others.current[0].shape == (KNOWN + 1, WIDTH)
    side = side._replace(weights=torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64))
    loss = NeighbourContrast(neighbours(), 5.0)(side, others)
    expected = sum(
        weight * slow((side.old[layer, i] / 5).tolist(), current[layer][: KNOWN + 1], LISTS[i]) / 2
        for layer in range(2)
        for i, weight in zip((1, 2, 3), (0.5, 2.0, 3.0), strict=True)
    )
    assert loss.item() == pytest.approx(expected / 3, rel=1e-12)


@pytest.mark.parametrize("count", [KNOWN, 7, 2])
def test_the_estimate_knows_neighbours_exactly(count):
    ids, old, current = torch.tensor([1, 2, 3, 4, 5]), drawn_from(0, 5, WIDTH), drawn_from(1, KNOWN + 1, WIDTH)
    drawn = torch.randperm(KNOWN, generator=torch.Generator().manual_seed(3))[:count] + 1
    pairs = Pairs.of(neighbours(), ids)
    scores = (old[pairs.row] * current[pairs.neighbour]).sum(1)
    for i, row, told in zip(ids.tolist(), old, estimate(old, current, pairs, scores, drawn).tolist(), strict=True):
        share = {n: exp(row @ current[n]) for n in range(1, KNOWN + 1)}
        others = [n for n in drawn.tolist() if n not in LISTS[i]]
        scale = (KNOWN - len(LISTS[i])) / max(len(others), 1)
        total = sum(share[n] for n in LISTS[i]) + scale * sum(share[n] for n in others)
        assert told == pytest.approx(log(total), rel=1e-12)
    if count == KNOWN:
        torch.testing.assert_close(
            contrast(old, current, pairs, drawn), contrast(old, current, pairs), rtol=1e-12, atol=0
        )


def test_gradients_of_both_forms_agree_and_spare_the_old_vectors():
    ids, old, current = torch.tensor([1, 2, 3]), drawn_from(0, 3, WIDTH), drawn_from(1, KNOWN + 1, WIDTH)
    grads = []
    for drawn in (None, torch.arange(1, KNOWN + 1)):
        leaves = old.clone().requires_grad_(), current.clone().requires_grad_()
        contrast(*leaves, Pairs.of(neighbours(), ids), drawn).sum().backward()
        assert leaves[0].grad is None and not leaves[1].grad[0].any() and leaves[1].grad[1:].all()
        grads.append(leaves[1].grad)
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-12)


def test_drawn_entities_leave_the_mean_as_it_is():
    torch.manual_seed(0)
    side, others, _ = sides(torch.arange(1, 6))
    whole, some = NeighbourContrast(neighbours(), 5.0), NeighbourContrast(neighbours(), 5.0, max_entities=1)
    told = torch.stack([some(side, others) for _ in range(400)]).detach()
    assert len(told.unique()) == 4 and told.mean().item() == pytest.approx(whole(side, others).item(), rel=0.02)
    every = NeighbourContrast(neighbours(), 5.0, max_entities=9, candidates=99)
    assert every(side, others).item() == pytest.approx(whole(side, others).item(), rel=1e-12)


@pytest.mark.parametrize("candidates", [None, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_large_scores_stay_finite(candidates, dtype):
    side, others, _ = sides(torch.arange(1, 6))
    current = [(table.detach() * 300).to(dtype).requires_grad_() for table in others.current]
    side = side._replace(old=side.old.to(dtype) * 10, weights=side.weights.to(dtype))
    loss = NeighbourContrast(neighbours(), 1.0, candidates=candidates)(side, others._replace(current=current))
    loss.backward()
    assert loss.isfinite() and loss > 100 and loss.dtype == dtype
    assert all(table.grad.isfinite().all() and table.grad.any() for table in current)


@pytest.mark.parametrize("settings", [{}, {"max_entities": 2, "candidates": 3}])
def test_nobody_known_is_no_loss(settings):
    side, others, _ = sides(torch.tensor([0, 40]))
    loss = NeighbourContrast(neighbours(), 5.0, **settings)(side, others)
    assert loss.item() == 0 and len(side.ids) == 0
    alone = NeighbourContrast(neighbours(), 5.0, **settings)(sides(torch.tensor([2]))[0], others)
    assert alone.item() == 0


def test_an_estimate_when_all_drawn_are_neighbours_is_finite():
    old, current = drawn_from(0, 1, WIDTH), drawn_from(1, 4, WIDTH).requires_grad_()
    pairs = Pairs.of(Neighbours.of(torch.tensor([1, 1, 1]), torch.tensor([1, 2, 3]), 1), torch.tensor([1]))
    losses = contrast(old, current, pairs, torch.tensor([1, 3]))
    losses.sum().backward()
    assert losses.item() == pytest.approx(slow(old[0].tolist(), current, [1, 2, 3])) and current.grad.isfinite().all()

from __future__ import annotations

from math import exp, log

import pytest
import torch

from seqkd.functional.soft_bce import soft_bce


def test_it_is_the_sum_of_a_loop():
    draw = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(3, 4, generator=draw).double(), torch.rand(3, 4, generator=draw).double()
    empty = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 1], [1, 1, 1, 1]]).bool()
    expected = [0.0, 0.0, 0.0]
    for row in range(3):
        for place in range(4):
            if not empty[row, place]:
                p, y = 1 / (1 + exp(-scores[row, place])), labels[row, place].item()
                expected[row] -= y * log(p) + (1 - y) * log(1 - p)
    assert soft_bce(scores, labels, empty).tolist() == pytest.approx(expected, rel=1e-12)


def test_large_scores_are_finite_and_half_precision_is_widened():
    scores = torch.tensor([[1e3, -1e3]], dtype=torch.bfloat16, requires_grad=True)
    loss = soft_bce(scores, torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2, dtype=torch.bool))
    assert loss.dtype == torch.float32 and loss.item() == 2000.0
    loss.sum().backward()
    assert scores.grad.tolist() == [[1.0, -1.0]]


def test_empty_places_learn_nothing():
    scores = torch.zeros(1, 2, requires_grad=True)
    soft_bce(scores, torch.ones(1, 2), torch.tensor([[False, True]])).sum().backward()
    assert scores.grad.tolist() == [[-0.5, 0.0]]

"""Scores of several views against slow loops; the chunked log-softmax against the plain one, gradients too."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from seqkd.models.unim2rec import dynamic_scores as module
from seqkd.models.unim2rec.dynamic_scores import dynamic_log_probs, dynamic_scores


def draw(views: int, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    queries = F.normalize(torch.randn(5, 4, generator=generator, dtype=dtype), dim=-1)
    items = F.normalize(torch.randn(7, views, 4, generator=generator, dtype=dtype), dim=-1)
    items[2, 1] = 0  # without image
    items[3, 0] = 0  # without text
    items[4, :2] = 0  # without any
    return queries, items


def slow(query, views, phi: float, ids: bool) -> float:
    there = [view for view in views[:2] if view.any()]
    cosines = [float(query @ view) for view in there]
    weights = [math.exp(phi * cosine) for cosine in cosines]
    mixed = sum(w * c for w, c in zip(weights, cosines, strict=True)) / sum(weights) if there else 0.0
    return (float(query @ views[2]) + 2 * mixed) / 3 if ids else mixed


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("phi", [0.0, 3.0])
def test_scores_equal_a_loop(phi, ids):
    queries, views = draw(2 + ids)
    expected = torch.tensor([[slow(query, item, phi, ids) for item in views] for query in queries])
    sharpness = torch.tensor([phi])
    torch.testing.assert_close(dynamic_scores(queries, views, sharpness, 2), expected)
    each = torch.tensor([[1, 4], [2, 3], [5, 6], [0, 1], [4, 4]])  # candidates of each query
    torch.testing.assert_close(dynamic_scores(queries, views[each], sharpness, 2), expected.gather(1, each))


@pytest.mark.parametrize("chunk", [1, 40, 2**20])
def test_log_probs_equal_a_plain_softmax(chunk, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", chunk)
    queries, views = draw(3)
    item_ids = torch.tensor([[1, 0], [2, 3], [4, 5], [6, 6], [0, 0]])
    results = []
    for fast in (True, False):
        leaves = [tensor.clone().requires_grad_() for tensor in (queries, views, torch.tensor([2.0]))]
        if fast:
            chosen = dynamic_log_probs(leaves[0], leaves[1], item_ids, leaves[2], 2, 0.07)
        else:
            logits = dynamic_scores(leaves[0], leaves[1], leaves[2], 2)[:, 1:] / 0.07
            chosen = logits.log_softmax(1).gather(1, (item_ids - 1).clamp(min=0)) * (item_ids > 0)
        chosen.sum().backward()
        results.append((chosen.detach(), [leaf.grad for leaf in leaves]))
    torch.testing.assert_close(results[0], results[1])
    assert all(grad.any() for grad in results[0][1])

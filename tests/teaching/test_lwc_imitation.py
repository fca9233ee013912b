from __future__ import annotations

from math import exp, log

import pytest
import torch

from seqkd.teaching.lwc_imitation import ImitationWeights


def made(clusters: int = 3, width: int = 4, dtype=torch.float64) -> ImitationWeights:
    torch.manual_seed(0)
    weights = ImitationWeights(torch.randn(clusters, width, dtype=dtype))
    with torch.no_grad():
        weights.transforms.add_(0.3 * torch.randn_like(weights.transforms))
    return weights


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_weights_are_the_equation():
    weights = made()
    old, now = torch.randn(2, 5, 4, dtype=torch.float64)
    centres, transforms = weights.centres.tolist(), weights.transforms.tolist()

    def stand(user):
        keys = [[dot(c, column) for column in zip(*w, strict=True)] for c, w in zip(centres, transforms, strict=True)]
        shares = [exp(dot(user, key)) for key in keys]
        return [share / sum(shares) for share in shares]

    (w1, b1), (w2, b2) = ((layer.weight.tolist(), layer.bias.tolist()) for layer in (weights.mlp[0], weights.mlp[2]))
    raw = []
    for a, b in zip(old.tolist(), now.tolist(), strict=True):
        state = [(x - y) ** 2 for x, y in zip(stand(a), stand(b), strict=True)]
        hidden = [max(dot(row, state) + bias, 0) for row, bias in zip(w1, b1, strict=True)]
        raw.append(log(1 + exp(dot(w2[0], hidden) + b2[0])))
    assert weights(old, now).tolist() == pytest.approx([w * 5 / sum(raw) for w in raw], rel=1e-9)


def test_clustering_is_the_equation():
    weights, items = made(), torch.randn(6, 4, dtype=torch.float64)
    q = []
    for item in items.tolist():
        shares = [
            (1 + sum((x - c) ** 2 for x, c in zip(item, centre, strict=True)) / 5) ** -3
            for centre in weights.centres.tolist()
        ]
        q.append([share / sum(shares) for share in shares])
    sizes = [sum(column) for column in zip(*q, strict=True)]
    total = 0.0
    for row in q:
        sharp = [share**2 / size for share, size in zip(row, sizes, strict=True)]
        total += sum(p / sum(sharp) * log(p / sum(sharp) / share) for p, share in zip(sharp, row, strict=True))
    assert weights.clustering(items).item() == pytest.approx(total / 6, rel=1e-9)


def test_who_learns():
    """The clustering moves centres; the weights move centres, transforms and the MLP; no vector is moved by either."""
    weights, vectors = made(), torch.randn(3, 7, 4, dtype=torch.float64, requires_grad=True)
    weights.clustering(vectors[0]).backward()
    assert weights.centres.grad.any() and weights.transforms.grad is None and vectors.grad is None
    weights.zero_grad()
    with torch.no_grad():
        weights.mlp[0].bias.fill_(0.1)  # every hidden unit is awake
    (weights(vectors[1], vectors[2]) * torch.arange(7)).sum().backward()
    assert all(parameter.grad.any() for name, parameter in weights.named_parameters() if name != "mlp.2.bias")
    assert vectors.grad is None


def test_who_has_not_moved_weighs_as_everybody():
    weights, users = made(), torch.randn(4, 4, dtype=torch.float64)
    assert weights(users, users).tolist() == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("size", [1, 50])
def test_large_vectors_stay_finite(size):
    weights, vectors = made(dtype=torch.float32), torch.randn(3, size, 4) * 1e3
    loss = (weights(vectors[0], vectors[1])).sum() + weights.clustering(vectors[2])
    loss.backward()
    assert loss.isfinite() and all(parameter.grad.isfinite().all() for parameter in weights.parameters())
    assert weights(vectors[0, :0], vectors[1, :0]).shape == (0,)

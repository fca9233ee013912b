from __future__ import annotations

import json
from math import sqrt

import pytest
import torch

from seqkd.functional import cosine_graph as module
from seqkd.functional.cosine_graph import cosine_graph


def slow(owners, members, size, degree=10.0, tolerance=0.6):
    """Pairs by pairs, and the bisection as the specification words it."""
    sets = {owner: {m for o, m in zip(owners, members, strict=True) if o == owner} for owner in range(1, size + 1)}
    cosines = {
        (a, b): len(sets[a] & sets[b]) / sqrt(len(sets[a]) * len(sets[b]) or 1) for a in sets for b in sets if a != b
    }
    low, high = 0.1, 0.9
    for _ in range(100):
        middle = (low + high) / 2
        mean = sum(cosine > middle for cosine in cosines.values()) / size
        if abs(mean - degree) < tolerance:
            high = middle
            break
        low, high = (middle, high) if mean > degree else (low, middle)
    return sorted(pair for pair, cosine in cosines.items() if cosine > high)


@pytest.fixture(scope="module")
def case(golden):
    return json.loads((golden / "ccd_misc.json").read_text())["uu_ii"]


def test_golden(case):
    users, items = torch.tensor(case["R"]).nonzero().T
    num_users, num_items = len(case["R"]), len(case["R"][0])
    found = cosine_graph(users + 1, items, num_users)
    assert found.shape[1] == case["UU_edges"]
    assert (found - 1).T.tolist() == torch.tensor(case["UU_dense"]).nonzero().tolist()
    assert cosine_graph(items + 1, users, num_items).shape[1] / num_items == pytest.approx(case["II_avg_degree"])


@pytest.mark.parametrize("degree, tolerance", [(10.0, 0.6), (3.0, 0.2), (5.0, 0.001)])
@pytest.mark.parametrize("rows", [7, 2048])
def test_against_pairs(degree, tolerance, rows, monkeypatch):
    """Also in pieces, and where equal cosines leap over the tolerance."""
    monkeypatch.setattr(module, "ROWS", rows)
    owners, members = (torch.rand(40, 15, generator=torch.Generator().manual_seed(0)) < 0.3).nonzero().T
    found = cosine_graph(owners + 1, members, 45, degree=degree, tolerance=tolerance)
    assert [tuple(pair) for pair in found.T.tolist()] == slow(
        (owners + 1).tolist(), members.tolist(), 45, degree, tolerance
    )
    assert found.dtype == torch.int64 and found.shape[1] > 45


def test_too_dense_and_too_sparse_graphs_are_taken_as_they_are():
    alike = torch.arange(1, 31), torch.zeros(30, dtype=torch.int64)  # all have the same one thing
    assert cosine_graph(*alike, 30).shape == (2, 30 * 29)
    apart = torch.arange(1, 31), torch.arange(30)
    assert cosine_graph(*apart, 30).shape == (2, 0)

"""The consensus of heads: golden importance, a slow loop, short lists."""

from __future__ import annotations

import json
from math import exp, sqrt

import numpy as np
import pytest
import torch

from seqkd.errors import ConfigError
from seqkd.functional.head_consensus import HeadConsensusConfig, deviations, head_consensus


def lists_of(ranks) -> torch.Tensor:
    """From ranks of items, from 0, `(..., I)`: lists of internal ids."""
    return torch.as_tensor(ranks).argsort(dim=-1) + 1


@pytest.fixture
def case(golden):
    return json.loads((golden / "concf_consensus.json").read_text())["cases"][0]


@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        ("rank_only", {"consistency": "none"}),
        ("rank_plus_consistency", {"deviation_scale": 100.0}),
        ("first_call_with_S_zero", {"consistency": "presence"}),
    ],
)
def test_golden_importance(variant, settings, case):
    """130 items, 6 heads, a window of 5; lists of all items."""
    rankings = lists_of(case["inputs"]["queue_ranks"]).transpose(0, 1)  # (W, h, U, I)
    items, importance = head_consensus(rankings, 130, HeadConsensusConfig(**settings))
    expected = torch.tensor(case["expected"][f"consensus_{variant}"], dtype=torch.float64)
    listed = items > 0
    got = torch.zeros_like(expected).scatter(1, items.clamp(min=1) - 1, importance)
    assert listed.all()  # every item is in some head's top 100
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)
    top = torch.tensor(case["expected"][f"top20_{variant}"])
    theirs = expected.gather(1, top)
    torch.testing.assert_close(importance[:, :20], theirs, rtol=1e-9, atol=1e-11)
    if variant == "rank_plus_consistency":
        assert torch.equal(items[:, :20], top + 1)


def test_golden_deviation(case):
    rankings = lists_of(case["inputs"]["queue_ranks"]).transpose(0, 1)
    every = torch.arange(1, 131).expand(6, 2, 130)
    expected = torch.tensor(case["expected"]["std_per_head"], dtype=torch.float64)
    torch.testing.assert_close(deviations(rankings, every), expected, rtol=1e-9, atol=1e-11)


def test_golden_ranks(golden):
    """Items of training come last, in whatever order: lists end before them."""
    case = json.loads((golden / "concf_rankmat.json").read_text())["cases"][0]
    scores = torch.tensor(case["inputs"]["scores"], dtype=torch.float64)
    users, items = torch.tensor(case["inputs"]["train"])[:, :2].T
    scores[users, items] = -torch.inf
    best = scores.topk(5, dim=1)
    ranks = torch.tensor(case["expected"]["ranks"])
    lists = (best.indices + 1).masked_fill(best.values == -torch.inf, 0)
    for user, row in enumerate(lists.tolist()):
        assert [ranks[user, item - 1].item() for item in row if item] == list(range(sum(map(bool, row))))
    consensus, importance = head_consensus(lists[None, None], 6, HeadConsensusConfig(consistency="none"))
    assert torch.equal(consensus[:, :5], lists) and not consensus[:, 5:].any()
    assert importance[0, 1].item() == pytest.approx(exp(-0.1))


def test_lists_that_are_shorter_than_the_catalogue(case):
    """What came from below the list counts as rank M, so it seems steadier; the top hardly changes."""
    rankings = lists_of(case["inputs"]["queue_ranks"]).transpose(0, 1)
    config = HeadConsensusConfig(deviation_scale=100.0)
    exact, short = (head_consensus(lists, 20, config)[0] for lists in (rankings, rankings[..., :100]))
    assert [len({*a} & {*b}) for a, b in zip(exact.tolist(), short.tolist(), strict=True)] == [20, 19]


def slow(rankings, top, scale, deviation_scale) -> list[dict[int, float]]:
    """The importance of each item for each user; a rank that is not listed is the length of the list."""
    window, heads, users, length = rankings.shape
    found = []
    for user in range(users):
        importance: dict[int, float] = {}
        for head in range(heads):
            for rank, item in enumerate(rankings[-1, head, user, :top].tolist()):
                if item == 0:
                    continue
                older = [rankings[w, head, user].tolist() for w in range(window)]
                ranks = [row.index(item) if item in row else length for row in older]
                mean = sum(ranks) / window
                deviation = sqrt(sum((r - mean) ** 2 for r in ranks) / window)
                vote = exp(-rank / scale) + exp(-deviation / deviation_scale)
                importance[item] = importance.get(item, 0.0) + vote
        found.append(importance)
    return found


def test_slow_loop_with_short_lists_and_empty_places(monkeypatch):
    monkeypatch.setattr("seqkd.functional.head_consensus.ROWS", 2)
    draw = np.random.default_rng(0)
    lists = [[[draw.permutation(12)[:6] + 1 for _ in range(5)] for _ in range(3)] for _ in range(4)]
    rankings = torch.from_numpy(np.array(lists)).int()
    rankings[:, :, 3, 2:] = 0
    rankings[:, :, 4] = 0
    items, importance = head_consensus(rankings, 14, HeadConsensusConfig(top=4, rank_scale=3.0, deviation_scale=2.0))
    for row, values, expected in zip(items.tolist(), importance.tolist(), slow(rankings, 4, 3.0, 2.0), strict=True):
        assert dict(zip(row, values, strict=True)).keys() - {0} == expected.keys()
        assert [v for i, v in zip(row, values, strict=True) if i] == pytest.approx(sorted(expected.values())[::-1])
        assert all(expected[i] == pytest.approx(v) for i, v in zip(row, values, strict=True) if i)


def test_wrong_settings():
    with pytest.raises(ConfigError, match="consistency"):
        HeadConsensusConfig(consistency="frozen")
    with pytest.raises(ConfigError, match="rank_scale"):
        HeadConsensusConfig(rank_scale=0)

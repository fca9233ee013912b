"""Ranking metrics: fractions written out by hand, and the golden vectors."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch

from seqkd.errors import ConfigError
from seqkd.evaluation.metrics import ranking_metrics, ranks_from_scores, ranks_from_topk, set_metrics

GOLDEN = Path(os.environ.get("SEQKD_GOLDEN", Path(__file__).parents[1] / "golden"))
FILES = sorted(GOLDEN.glob("ranking_metrics*.json"))
TIES = {"strictly_greater": "strictly_greater", "ties_count_against": "against"}


def test_golden_files_are_there():
    assert FILES, f"no ranking_metrics*.json in {GOLDEN}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_metrics(path):
    case = json.loads(path.read_text())
    scores, labels = torch.tensor(case["scores"]), torch.tensor(case["labels"])
    for name, expected in case["expected"].items():
        ranks = ranks_from_scores(scores, labels, ties=TIES[name])
        assert ranks.tolist() == expected["rank0"]
        cutoffs = sorted({int(key.split("@")[1]) for key in expected if "@" in key})
        metrics = ranking_metrics(ranks, [*cutoffs, scores.shape[1]])
        metrics["mrr"] = metrics[f"mrr@{scores.shape[1]}"]  # a cut-off that no rank reaches
        for key, value in expected.items():
            if key != "rank0":
                assert metrics[key] == pytest.approx(value, abs=1e-12), (name, key)


def test_four_users_by_hand():
    topk = torch.tensor([[5, 2, 9], [1, 7, 4], [3, 8, 6], [2, 0, 0]])
    ranks = ranks_from_topk(topk, torch.tensor([5, 4, 1, 2]))
    assert ranks.tolist() == [0, 2, 3, 0]  # 3 = K: absent
    metrics = ranking_metrics(ranks, [1, 3])
    assert list(metrics) == ["recall@1", "ndcg@1", "mrr@1", "recall@3", "ndcg@3", "mrr@3"]
    assert metrics["recall@1"] == metrics["ndcg@1"] == metrics["mrr@1"] == 2 / 4
    assert metrics["recall@3"] == 3 / 4
    assert metrics["ndcg@3"] == pytest.approx((1 + 1 / math.log2(4) + 0 + 1) / 4, abs=1e-15)
    assert metrics["mrr@3"] == pytest.approx((1 + 1 / 3 + 0 + 1) / 4, abs=1e-15)


def test_ranks_from_a_list_equal_ranks_from_scores():
    scores = torch.randn(20, 31, generator=torch.Generator().manual_seed(0))
    scores[:, 0] = -torch.inf
    targets = torch.arange(1, 21)
    full = ranks_from_scores(scores, targets)
    assert torch.equal(ranks_from_topk(scores.topk(10).indices, targets), full.clamp(max=10))


def test_a_high_padding_score_does_not_move_a_rank():
    assert ranks_from_scores(torch.tensor([[9.0, 1.0, 2.0]]), torch.tensor([2])).tolist() == [0]


@pytest.mark.parametrize("ties", ["strictly_greater", "against"])
def test_scores_that_are_not_numbers_rank_last(ties):
    scores = torch.full((1, 5), torch.nan)
    assert ranks_from_scores(scores, torch.tensor([2]), ties)[0] >= 3
    scores[0, 2] = 1.0  # a number among NaN is behind them all
    assert ranks_from_scores(scores, torch.tensor([2]), ties).tolist() == [3]


def test_constant_scores():
    scores, targets = torch.zeros(1, 6), torch.tensor([3])
    assert ranks_from_scores(scores, targets).tolist() == [0]
    assert ranks_from_scores(scores, targets, ties="against").tolist() == [4]


def test_bad_settings_are_refused():
    with pytest.raises(ConfigError, match="ties"):
        ranks_from_scores(torch.zeros(1, 2), torch.tensor([1]), ties="mean")
    with pytest.raises(ConfigError, match="cut-offs"):
        ranking_metrics(torch.tensor([0]), [0])


def test_empty_lists_and_no_queries():
    assert ranks_from_topk(torch.zeros(2, 0, dtype=torch.long), torch.tensor([1, 2])).tolist() == [0, 0]
    assert math.isnan(ranking_metrics(torch.zeros(0), [10])["ndcg@10"])


def test_sets_of_three_users_by_hand():
    """Ranks from 0: one wants {0, 4}, one {2}, one {0, 1, 2, not found}."""
    counts = torch.zeros(5, 6, dtype=torch.long)  # sizes 0..4, ranks 0..4 and beyond
    for size, ranks in ((2, [0, 4]), (1, [2]), (4, [0, 1, 2, 5])):
        for rank in ranks:
            counts[size, rank] += 1
    metrics = set_metrics(counts, [2, 3, 5])
    assert list(metrics) == ["recall@2", "ndcg@2", "recall@3", "ndcg@3", "recall@5", "ndcg@5"]
    assert metrics["recall@2"] == pytest.approx((1 / 2 + 0 + 2 / 4) / 3, abs=1e-15)
    assert metrics["recall@3"] == pytest.approx((1 / 2 + 1 + 3 / 4) / 3, abs=1e-15)
    assert metrics["recall@5"] == pytest.approx((2 / 2 + 1 + 3 / 4) / 3, abs=1e-15)
    first, second, third, fourth, fifth = (1 / math.log2(place + 1) for place in range(1, 6))
    assert metrics["ndcg@2"] == pytest.approx((first / (first + second) + 0 + 1) / 3, abs=1e-15)
    assert metrics["ndcg@3"] == pytest.approx((first / (first + second) + third / first + 1) / 3, abs=1e-15)
    fifth_cut = (first + fifth) / (first + second) + third / first
    found = (first + second + third) / (first + second + third + fourth)
    assert metrics["ndcg@5"] == pytest.approx((fifth_cut + found) / 3, abs=1e-15)


def test_sets_of_one_are_queries():
    ranks = torch.tensor([0, 3, 1, 7, 7])
    counts = torch.stack([torch.zeros(8, dtype=torch.long), ranks.bincount(minlength=8)])
    single = ranking_metrics(ranks, [1, 5])
    assert set_metrics(counts, [1, 5]) == pytest.approx({name: single[name] for name in single if "mrr" not in name})


def test_sets_of_nobody_and_bad_cut_offs():
    assert math.isnan(set_metrics(torch.zeros(1, 11), [10])["ndcg@10"])
    with pytest.raises(ConfigError, match="cut-offs"):
        set_metrics(torch.zeros(1, 11), [0])

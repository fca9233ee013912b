"""Records of measurements: what they refuse, that they survive JSON, means over seeds computed by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from seqkd.errors import DataError
from seqkd.results import Result, Spread, load_results, save_results, summarise

ALONE = Result(
    model="student alone",
    role="student",
    domain="Scientific",
    data="Amazon Reviews 2018",
    seed=0,
    split="test",
    protocol="loo",
    history="masked",
    metrics={"ndcg@10": 0.06, "recall@10": 0.09},
    num_users=8442,
    num_queries=8442,
    parameters=530_000,
    megabytes=2.12,
    ms_per_user=0.08,
)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"role": "pupil"}, "role must be one of"),
        ({"split": "train"}, "split must be one of"),
        ({"protocol": "random"}, "protocol must be one of"),
        ({"history": "hidden"}, "history must be one of"),
        ({"metrics": {"ndcg10": 0.1}}, "write e.g. ndcg@10"),
        ({"metrics": {"ndcg@10": math.nan}}, "ndcg@10 is nan"),
        ({"metrics": {"ndcg@10": 6.68}}, "not in percent"),
        ({"metrics": {"ndcg@10": "many"}}, "must be a number"),
        ({"ms_per_user": math.inf}, "ms_per_user is inf"),
        ({"megabytes": None}, "megabytes must be a number"),
    ],
)
def test_refused(change, words):
    with pytest.raises(DataError, match=f"(?i){words}"):
        replace(ALONE, **change)


def test_numpy_scalars_become_plain_numbers():
    result = replace(ALONE, metrics={"ndcg@10": np.float64(0.5)}, seed=np.int64(3), megabytes=np.float32(2.5))
    assert [type(value) for value in (result.metrics["ndcg@10"], result.seed, result.megabytes)] == [float, int, float]
    assert json.loads(result.to_json())["seed"] == 3


def test_json_and_back():
    assert Result.from_json(ALONE.to_json()) == ALONE


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "no JSON"),
        ("[1]", "missing or unknown"),
        ('{"model": "x"}', "'seed'"),
        (ALONE.to_json().replace("0.06", "NaN"), "is nan"),
        (ALONE.to_json().replace("0.08", "1e999"), "is inf"),
    ],
)
def test_broken_json_is_refused(text, words):
    with pytest.raises(DataError, match=words):
        Result.from_json(text)


def test_file_and_back(tmp_path):
    path = tmp_path / "results.json"
    save_results([ALONE, replace(ALONE, seed=1)], path, {"command": "accelerate launch x.py", "seeds": [0, 1]})
    assert load_results(path) == [ALONE, replace(ALONE, seed=1)]
    assert json.loads(path.read_text())["about"]["seeds"] == [0, 1]
    path.write_text('{"results": [{"model": 1}]}')
    with pytest.raises(DataError, match=r"results\.json holds no results"):
        load_results(path)


def test_mean_and_deviation_over_seeds():
    values = (0.06, 0.07, 0.11)  # mean .08, squares .0004 + .0001 + .0009 = .0014, / 2 = .0007
    rows = summarise([replace(ALONE, seed=s, metrics={"ndcg@10": v}) for s, v in enumerate(values)])
    assert len(rows) == 1 and rows[0].by_seed("ndcg@10") == dict(enumerate(values))
    assert rows[0].spread("ndcg@10") == pytest.approx((0.08, math.sqrt(0.0007), 3))
    assert rows[0].spread("ndcg@50") is None
    assert Spread.of([0.5]) == (0.5, 0.0, 1)


def test_models_domains_and_protocols_stay_apart():
    others = [replace(ALONE, domain="Office"), replace(ALONE, history="unmasked"), replace(ALONE, model="wide")]
    assert [row.first for row in summarise([ALONE, *others])] == [ALONE, *others]


@pytest.mark.parametrize(
    "other, words",
    [
        (ALONE, "twice with one seed"),
        (replace(ALONE, seed=1, parameters=7), "has parameters 530000 with seed 0, but 7 with seed 1"),
        (replace(ALONE, seed=1, num_users=7), "num_users"),
        (replace(ALONE, seed=1, metrics={"mrr@10": 0.1}), "other metrics"),
    ],
)
def test_seeds_that_do_not_belong_together(other, words):
    with pytest.raises(DataError, match=words):
        summarise([ALONE, other])

"""Records of measurements: what they refuse, that they survive JSON, means over seeds computed by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from seqkd.errors import DataError
from seqkd.evaluation.results import Result, Spread, load_results, save_results, summarise

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


def test_sets_are_measured_by_user():
    """Means over targets are no means over users, and MRR is of one target."""
    sets = replace(ALONE, protocol="ratio")
    assert Result.from_json(sets.to_json()) == sets
    with pytest.raises(DataError, match=r"each of the 8442 users once.*here are 16000 queries.*TargetSets"):
        replace(sets, num_queries=16_000)
    with pytest.raises(DataError, match=r"has Recall and NDCG; here are .*'mrr@10'.*TargetSets"):
        replace(sets, metrics={**sets.metrics, "mrr@10": 0.1})
    with pytest.raises(DataError, match=r"protocol must be one of .*'ratio'.*got 'ratio 0\.8/0\.1/0\.1'"):
        replace(sets, protocol="ratio 0.8/0.1/0.1")


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


WEIGHED = {
    "one": {"confidence": 0.5, "consistency": 0.25, "weight": 0.4, "leads": 1.0},
    "two": {"confidence": 0.5, "consistency": 0.75, "weight": 0.6, "leads": 0.0},
}


def test_teacher_weights_survive_json_and_old_files_have_none(tmp_path):
    taught = replace(ALONE, role="distilled", teacher_weights=WEIGHED)
    assert Result.from_json(taught.to_json()) == taught and taught.teacher_weights == WEIGHED
    save_results([taught, ALONE], tmp_path / "results.json", {})
    assert load_results(tmp_path / "results.json") == [taught, ALONE]
    assert "teacher_weights" not in ALONE.to_json() and ALONE.teacher_weights == {}


@pytest.mark.parametrize(
    "weights, words",
    [
        ({"one": {"weight": 0.5}}, r"teacher 'one' has \['weight'\]"),
        ({"one": {**WEIGHED["one"], "leads": 40}}, "leads of teacher 'one' is 40.0. It is a share"),
        ({"one": {**WEIGHED["one"], "weight": math.nan}}, "weight of teacher 'one' is nan"),
    ],
)
def test_teacher_weights_that_are_refused(weights, words):
    with pytest.raises(DataError, match=words):
        replace(ALONE, teacher_weights=weights)


@pytest.mark.parametrize("weights", ["[1]", '{"one": 1}', "null"])
def test_broken_teacher_weights_in_a_file(weights):
    text = ALONE.to_json()[:-1] + f', "teacher_weights": {weights}}}'
    with pytest.raises(DataError, match="a result has the fields"):
        Result.from_json(text)


def test_teacher_weights_over_seeds():
    other = {**WEIGHED, "one": {**WEIGHED["one"], "weight": 0.6}}
    rows = summarise([replace(ALONE, teacher_weights=WEIGHED), replace(ALONE, seed=1, teacher_weights=other)])
    weights = rows[0].teacher_weights()
    assert weights["one"]["weight"] == pytest.approx((0.5, 0.1 * math.sqrt(2), 2))  # .4 and .6
    assert weights["two"]["leads"] == (0.0, 0.0, 2)
    with pytest.raises(DataError, match=r"was taught by \['one', 'two'\] with seed 0, but by \[\] with seed 1"):
        summarise([replace(ALONE, teacher_weights=WEIGHED), replace(ALONE, seed=1)])


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

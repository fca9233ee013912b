"""How teachers were weighed, read from a training log: means computed by hand."""

from __future__ import annotations

import pytest

from seqkd.errors import DataError
from seqkd.teaching.teacher_weights import teacher_weights_of


def entry(step, epoch, weights, method="kd"):
    """A log entry in which all four statistics of a teacher are the same number."""
    names = ("confidence", "consistency", "weight", "leads")
    told = {f"{method}/{teacher}/{name}": value for teacher, value in weights.items() for name in names}
    return {"loss": 1.0, "loss_label": 1.0, **told, "epoch": epoch, "step": step}


def test_the_last_epoch_counts_and_each_entry_by_its_steps():
    log = [
        entry(6, 1.0, {"one": 1.0, "two": 0.0}),  # another epoch: no part of it
        {"eval_ndcg@10": 0.1, "epoch": 1.0, "step": 6},
        entry(10, 1.67, {"one": 0.5, "two": 0.5}),  # 4 steps
        entry(12, 2.0, {"one": 0.8, "two": 0.2}),  # 2 steps
        {"train_loss": 1.0, "epoch": 2.0, "step": 12},
    ]
    weights = teacher_weights_of(log)
    assert list(weights) == ["one", "two"]
    assert weights["one"] == pytest.approx(dict.fromkeys(("confidence", "consistency", "weight", "leads"), 0.6))
    assert weights["two"]["leads"] == pytest.approx(0.4)


def test_an_epoch_that_was_cut_short_is_the_last_one():
    log = [entry(6, 1.0, {"one": 1.0}), entry(8, 1.4, {"one": 0.25})]
    assert teacher_weights_of(log)["one"]["weight"] == 0.25


def test_names_with_slashes():
    assert list(teacher_weights_of([entry(6, 1.0, {"hub/one": 0.5})])) == ["hub/one"]


def test_nothing_logged_and_half_of_it():
    assert teacher_weights_of([]) == {}
    assert teacher_weights_of([{"loss": 1.0, "kd/one": 3.0, "kd/one/sharpness": 2.0, "epoch": 1.0, "step": 1}]) == {}
    assert teacher_weights_of([{"kd/one/weight": 0.5, "epoch": 1.0, "step": 1}]) == {}


def test_two_methods_are_not_mixed():
    log = [{**entry(6, 1.0, {"one": 0.5}), **entry(6, 1.0, {"one": 0.7}, "other")}]
    with pytest.raises(DataError, match=r"\['kd', 'other'\]"):
        teacher_weights_of(log)

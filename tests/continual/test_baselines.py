"""Each baseline is what it says: what it starts from, trains on and hears."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from seqkd.continual import baselines, learning
from seqkd.continual.baselines import BASELINES, Baseline, Chain
from seqkd.continual.fit import FitConfig
from seqkd.data.stream_rows import whole
from seqkd.errors import ConfigError
from seqkd.evaluation.stream import block_metrics
from seqkd.methods import METHODS
from seqkd.pipeline.training import new_model

from .small import FIT, config, stream


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """An MF for block 0."""
    folder = tmp_path_factory.mktemp("first")
    new_model(stream()[0], config().student, "student.model", 0).save_pretrained(folder)
    return folder


def chain(folder, baseline, first, **changes):
    """`changes` are the run's."""
    stage = FitConfig(**FIT)
    run = config(**changes)
    return Chain(folder, baseline, run, model=run.student, stage=stage, base=stage, first=first)


SMALLER = {
    "lwf": Baseline(methods={"rrd": {"interesting": 4, "uninteresting": 4, "list_length": 10}}, weights={"rrd": 0.1}),
    "lwc_kd": Baseline(methods={"lwc_kd": {"clusters": 3, "degree": 4.0}}),
}


@pytest.mark.parametrize("name", [name for name, how in BASELINES.items() if not how.taught])
def test_each_goes_through_a_stream_and_is_measured(name, first, tmp_path):
    kind, start = {}, first
    if name == "lwc_kd":  # which wants a graph
        kind, start = (
            {"student": {"type": "lightgcn", "model": {"hidden_size": 8, "num_layers": 2}}},
            tmp_path / "start",
        )
        new_model(stream()[0], config(**kind).student, "student.model", 0).save_pretrained(start)
    made = chain(tmp_path / "chain", SMALLER.get(name, BASELINES[name]), start, **kind)
    for k in range(2):
        assert not made.has(k)
        made.step(list(stream()[: k + 1]))
        assert made.has(k)
    assert [len(row) for row in made.matrix("recall@5").rows] == [1, 2]
    stages = dict(made.ledger(1).costs())
    assert set(stages) == {"model", "measured"} and ("epochs" in stages["model"]) == (name != "frozen")
    assert not list(tmp_path.rglob("checkpoint-*"))


def test_the_frozen_one_stays_and_does_not_answer_who_came_later(first, tmp_path):
    made = chain(tmp_path, BASELINES["frozen"], first)
    for k in range(2):
        made.step(list(stream()[: k + 1]))
    model, start = made._load(tmp_path / "1" / "model"), made._load(first)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True))
    told = block_metrics(start, stream()[1], stream()[0], ks=(5, 10))
    assert made.matrix("recall@5").rows[1][1] == told["recall@5"] and told["new_users/recall@5"] == 0


@pytest.fixture
def learned(monkeypatch):
    """The arguments of every `learn` and `fit`, which do nothing."""
    calls = []
    monkeypatch.setattr(baselines, "learn", lambda *args, **how: calls.append(("learn", args, how)) or {})
    monkeypatch.setattr(baselines, "fit", lambda *args, **how: calls.append(("fit", args, how)) or {})
    monkeypatch.setattr(Chain, "_measure", lambda self, blocks, folder: None)
    return calls


def through(name, first, folder, **changes):
    made = chain(folder, BASELINES[name], first, **changes)
    for k in range(2):
        made.step(list(stream()[: k + 1]))
    return made


@pytest.mark.parametrize(("name", "init"), [("fine-tune", "random"), ("fine-tune, init", "neighbours")])
def test_fine_tuning_is_labels_alone_on_the_block_alone(name, init, learned, first, tmp_path):
    through(name, first, tmp_path)
    ((what, args, how),) = learned  # block 0 is what all begin with
    assert what == "learn" and how == {"init": init, "content": None, "train": None}
    assert args[3].methods == {} == args[3].weights and args[3].every == 2 and args[4] == {}


def test_fine_tuning_longer_is_fine_tuning_as_long_as_a_student_is_distilled(learned, first, tmp_path):
    training = {**FIT["training"], "num_train_epochs": 9}
    generate = {"training": training, "every": 3, "patience": 4, "methods": {"full_ce": {}}, "label_weight": 0.5}
    through("fine-tune, longer", first, tmp_path, generate=generate)
    ((what, args, how),) = learned
    assert what == "learn" and how == {"init": "random", "content": None, "train": None} and args[4] == {}
    assert args[3] == FitConfig(training=training, every=3, patience=4)


def test_a_buffer_keeps_a_tenth_of_what_was_trained_on(learned, first, tmp_path):
    through("buffer", first, tmp_path)
    train = learned[0][2]["train"]
    of_block, old = sum(map(len, stream()[1].train["item_ids"])), len(stream()[0].pairs()[0])
    kept = sum(map(len, train["item_ids"])) - of_block
    assert 0 < kept < 0.2 * old
    assert train["item_ids"] == whole(stream()[:2], keep=0.1, seed=0).train["item_ids"]


@pytest.mark.parametrize("name", ["buffer", "retrain"])
def test_rows_of_all_blocks_are_as_long_as_the_stream_s(name, learned, first, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        baselines, "whole", lambda blocks, **how: asked.append(how["max_length"]) or whole(blocks, **how)
    )
    through(name, first, tmp_path, blocks={"max_length": 33})
    assert set(asked) == {33}


def test_retraining_is_a_new_model_on_all_blocks(learned, first, tmp_path):
    through("retrain", first, tmp_path)
    (_, (zero, _, *_), _), (what, (model, block, *_), how) = learned
    assert what == "fit" and how["metric"] == "recall@5"
    assert sum(map(len, block.train["item_ids"])) > len(stream()[1].pairs()[0])
    assert block.valid is stream()[1].valid and model.users == stream()[1].users and zero.users == stream()[0].users


def test_a_chain_goes_on_where_it_stopped(first, tmp_path, learned):
    through("fine-tune", first, tmp_path)
    shutil.rmtree(tmp_path / "1" / "measured")
    del learned[:]
    made = chain(tmp_path, BASELINES["fine-tune"], first)
    assert made.has(0) and not made.has(1)
    made.step(list(stream()[:2]))
    assert made.has(1) and not learned  # the model was there


def test_a_chain_that_was_made_otherwise_is_refused(first, tmp_path, learned):
    through("retrain", first, tmp_path)
    run, stage, base = config(), FitConfig(**FIT), FitConfig(**{**FIT, "every": 3})
    how = {"model": run.student, "stage": stage, "first": first}
    with pytest.raises(ConfigError, match=rf"{tmp_path} was made with another training"):
        Chain(tmp_path, BASELINES["retrain"], run, base=base, **how)
    with pytest.raises(ConfigError, match="another baseline and training"):
        Chain(tmp_path, SMALLER["lwf"], run, base=base, **how)
    through("fine-tune", first, tmp_path / "fine")
    Chain(tmp_path / "fine", BASELINES["fine-tune"], run, base=base, **how)  # which is never trained afresh
    noted = json.loads((tmp_path / "settings.json").read_text())
    del noted["baseline"]["longer"]  # of a version that did not have it
    (tmp_path / "settings.json").write_text(json.dumps(noted))
    chain(tmp_path, BASELINES["retrain"], first)


def test_what_baselines_learn_by_exists():
    for baseline in BASELINES.values():
        FitConfig(methods=baseline.methods, weights=baseline.weights)
        assert all(METHODS[name].config_class(**settings) for name, settings in baseline.methods.items())


def test_a_taught_one_hears_the_teachers_of_the_same_block(first, tmp_path, monkeypatch):
    kind = {"student": {"type": "lightgcn", "model": {"hidden_size": 8, "num_layers": 2}}}
    teacher = chain(tmp_path / "teacher", BASELINES["retrain"], first, **kind)
    run, stage = config(), FitConfig(**FIT)
    how = {"model": run.student, "stage": stage, "base": stage, "first": first, "teachers": {"graph": teacher}}
    student = Chain(tmp_path / "student", BASELINES["retrain, distilled"], run, **how)
    heard, ask = [], learning.ask
    monkeypatch.setattr(
        learning, "ask", lambda model, block, *rest: heard.append((model, block)) or ask(model, block, *rest)
    )
    for k in range(2):
        teacher.step(list(stream()[: k + 1]))
        student.step(list(stream()[: k + 1]))
        model, block = heard[-1]
        assert len(heard) == k + 1 and same_weights(model, teacher.model(k))
        assert len(block.pairs()[0]) == sum(len(b.pairs()[0]) for b in stream()[: k + 1]), "of all blocks"
    assert "ir_rrd" in run.generate.methods and len(student.matrix("recall@5")) == 2


def same_weights(one, other):
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])

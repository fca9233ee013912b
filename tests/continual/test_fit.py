"""A stage of training: what it reads, when it looks at validation, and that it never ends below where it began."""

from __future__ import annotations

import pytest
import torch

from seqkd.batches.collators import SequenceDataset
from seqkd.batches.target_sets import TargetSets
from seqkd.config import ModelConfig
from seqkd.continual.fit import FitConfig, fit, methods_of, part_of, rows_for
from seqkd.errors import ConfigError, SeqKDError
from seqkd.evaluation.stream import block_metrics
from seqkd.pipeline.training import new_model
from seqkd.trainer import DistillationTrainer

from .small import FIT, TRAINING, stream


def mf(block, seed=0, **model):
    return new_model(block, ModelConfig("mf", {"hidden_size": 8, **model}), "model", seed)


def sasrec(block):
    settings = {"hidden_size": 8, "num_hidden_layers": 1, "max_position_embeddings": 20}
    return new_model(block, ModelConfig("sasrec", settings), "model", 0)


def trained(model, folder, **changes):
    config = FitConfig(**{**FIT, **{name: value for name, value in changes.items() if name != "training"}})
    config.training = {**TRAINING, **changes.get("training", {})}
    return fit(model, stream()[0], config, folder, seed=0, metric="recall@5")


def on_validation(model):
    return block_metrics(model, stream()[0], stream()[0], part="valid", ks=(5,))["recall@5"]


def test_rows_number_users_where_the_model_knows_them():
    block, avoid = stream()[0], torch.tensor([[1], [2]])
    rows = rows_for(block.train, block, mf(block), avoid)
    assert rows.users == block.users and rows.avoid is avoid and rows.num_items == len(block.catalogue)
    block = stream("positions")[0]
    rows = rows_for(block.train, block, sasrec(block), avoid)
    assert rows.users is None and rows.avoid is None


def test_a_model_of_pairs_is_not_trained_on_histories():
    """Their beginning is what earlier blocks test."""
    block = stream("positions")[1]
    with pytest.raises(ConfigError, match=r"MFModel learns all items of a row.*queries='users'"):
        rows_for(block.train, block, mf(block))


def test_what_a_method_draws_when_it_is_prepared_follows_the_seed(tmp_path):
    """LWC-KD's first clusters and its small network."""
    block, made = stream()[0], []
    for elsewhere in (1, 2):
        methods = methods_of(FitConfig({"lwc_kd": {"clusters": 3, "degree": 3.0}}), "here")
        model = new_model(block, ModelConfig("lightgcn", {"hidden_size": 4, "num_layers": 1}), "model", 0)
        settings = FitConfig(**FIT, weights={})
        settings.training = {**TRAINING, "num_train_epochs": 1}
        torch.manual_seed(elsewhere)  # what ran before in this process, or did not
        fit(model, block, settings, tmp_path / str(elsewhere), seed=0, metric="recall@5", methods=methods)
        made.append({**methods["lwc_kd"].imitation.state_dict(), **model.state_dict()})
    assert all(torch.equal(one, other) for one, other in zip(made[0].values(), made[1].values(), strict=True))


def test_validation_is_read_as_the_block_asks():
    sets, positions = stream()[0], stream("positions")[0]
    assert isinstance(part_of(sets, "valid", sets, mf(sets)), TargetSets)
    of_positions = part_of(positions, "valid", positions, sasrec(positions))
    assert type(of_positions) is SequenceDataset and of_positions.users is None


def test_it_ends_as_it_was_best(tmp_path):
    model = mf(stream()[0])
    start = on_validation(model)
    noted = trained(model, tmp_path)
    assert noted["start"] == pytest.approx(start) and noted["best"] == pytest.approx(on_validation(model))
    assert noted["best"] > noted["start"] and not model.training
    assert noted["epochs"] == 4 and noted["steps"] % 4 == 0


def test_what_only_gets_worse_is_undone(tmp_path):
    """A trained model with a learning rate that destroys it."""
    model = mf(stream()[0])
    trained(model, tmp_path / "a")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    noted = trained(model, tmp_path / "b", training={"learning_rate": 50.0, "num_train_epochs": 1})
    assert noted["best"] == noted["start"] == pytest.approx(on_validation(model))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("epochs", "every", "looks"), [(4, 2, 2), (3, 2, 2), (1, 5, 1), (4, 4, 1)])
def test_the_last_look_is_after_the_last_epoch(epochs, every, looks, tmp_path, monkeypatch):
    at, evaluate = [], DistillationTrainer.evaluate

    def counting(trainer, *args, **kwargs):
        at.append(round(trainer.state.epoch or 0))
        return evaluate(trainer, *args, **kwargs)

    monkeypatch.setattr(DistillationTrainer, "evaluate", counting)
    trained(mf(stream()[0]), tmp_path, training={"num_train_epochs": epochs}, every=every)
    assert at[0] == 0 and len(at) == 1 + looks and at[-1] == epochs


def test_looks_without_gain_end_it(tmp_path):
    noted = trained(mf(stream()[0]), tmp_path, training={"learning_rate": 0.0, "num_train_epochs": 20}, every=1)
    assert noted["epochs"] == 3  # the first look, and two that are no better
    assert noted["best"] == noted["start"]


def test_the_same_seed_gives_the_same_model(tmp_path):
    one, other = mf(stream()[0]), mf(stream()[0])
    trained(one, tmp_path / "a")
    trained(other, tmp_path / "b")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_loss_that_is_no_number_stops_it(tmp_path):
    with pytest.raises(SeqKDError, match="not finite"):
        trained(mf(stream()[0]), tmp_path, training={"learning_rate": 1e30})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 0}, "every=0"),
        ({"patience": 0}, "patience=0"),
        ({"weights": {"rrd": 1.0}}, r"weights name \['rrd'\]"),
        ({"training": {"learning_rat": 1.0}}, "learning_rat"),
        ({"training": {"eval_strategy": "epoch"}}, "which a stage sets itself"),
        ({"training": {"seed": 3}}, "seed"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        FitConfig(**settings)


def test_methods_come_with_their_settings():
    made = methods_of(FitConfig(methods={"rrd": {"interesting": 7}}), "generate")
    assert made["rrd"].config.interesting == 7
    with pytest.raises(ConfigError, match=r"generate\.methods\.rrd: .*'interestin'"):
        methods_of(FitConfig(methods={"rrd": {"interestin": 7}}), "generate")
    with pytest.raises(ConfigError, match=r"generate\.methods names \['rdd'\]"):
        methods_of(FitConfig(methods={"rdd": {}}), "generate")

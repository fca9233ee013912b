from __future__ import annotations

import logging
import shutil

import pytest
import torch

from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, KnowledgeError
from seqkd.files.checkpoints import write_manifest
from seqkd.knowledge import Knowledge
from seqkd.knowledge.export import export, revision
from seqkd.knowledge.trajectory import Trajectory, load_trajectories, moments_of
from seqkd.trainer import DistillationTrainer

from ..methods.tiny_rankings import dataset, mf, set_split
from ..tiny import arguments, parts, tiny_sasrec, tiny_split

SPLIT = tiny_split()
TABLES = {"query_topk", "query_scores", "query_seen_topk"}


def trained(folder, resume=None, trajectory=None, student=None, split=SPLIT, **changes):
    """A teacher that learns something at each of ten epochs; the trainer and its trajectory."""
    trajectory = trajectory or Trajectory(split, folder / "knowledge", "gnn", k=5, fractions=(0.5, 0.8))
    trainer = DistillationTrainer(
        Distiller(student or tiny_sasrec(split)),
        arguments(folder / "run", **{"num_train_epochs": 10, "eval_strategy": "epoch", **changes}),
        *parts(split),
        callbacks=[trajectory],
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer, trajectory


def metrics(trainer):
    return {entry["step"]: entry["eval_ndcg@10"] for entry in trainer.state.log_history if "eval_ndcg@10" in entry}


def same(one: Knowledge, other: Knowledge) -> bool:
    return one.tables.keys() == other.tables.keys() and all(
        torch.equal(one.table(name), other.table(name)) for name in one.tables
    )


def test_moments_are_nearest_to_fractions_and_each_counts_once():
    told = {10: 0.01, 20: 0.04, 30: 0.065, 40: 0.09, 50: 0.1, 60: 0.12}
    assert moments_of(told, 0.1, (0.3, 0.5, 0.75)) == [20, 30]  # both .03 and .05 are nearest to .04
    assert moments_of(told, 0.1, (0.1, 0.6, 0.95)) == [10, 30, 40]  # what reached the end is none
    assert moments_of({10: 0.3}, 0.1, (0.5,)) == [] == moments_of({}, 0.0, (0.5,))


def test_moments_of_a_training_by_fraction(tmp_path):
    trainer, trajectory = trained(tmp_path)
    told = metrics(trainer)
    final = told[max(told)]
    rising = {step: now for step, now in told.items() if all(now > told[other] for other in told if other < step)}
    steps = moments_of(rising, final, (0.5, 0.8))
    assert len(steps) == 2 and list(trajectory.knowledge) == ["gnn@0", "gnn@1", "gnn@2"]
    kept = {folder.name for folder in (tmp_path / "knowledge" / "moments" / "gnn").iterdir()}
    assert kept == {f"step-{step}" for step in steps}
    loaded = load_trajectories(tmp_path / "knowledge")
    assert list(loaded) == list(trajectory.knowledge)
    student = trainer.model.student
    for name, step in zip(loaded, [*steps, None], strict=True):
        if step is not None:
            student = type(student).from_pretrained(tmp_path / "knowledge" / "moments" / "gnn" / f"step-{step}")
        else:
            student = trainer.model.student
        loaded[name].check(split=SPLIT, part="train", teacher_revision=revision(student))
        again = export(
            student,
            SPLIT.train,
            split=SPLIT,
            part="train",
            k=5,
            filter_seen=True,
            tables=("query_topk", "query_seen_topk"),
        )
        assert loaded[name].source.teacher == name and set(loaded[name].tables) == TABLES and same(loaded[name], again)
        assert same(Knowledge.from_pretrained(tmp_path / "knowledge" / name), trajectory.knowledge[name])
    assert not same(loaded["gnn@0"], loaded["gnn@2"])


def test_the_last_is_the_best_model_where_that_is_loaded(tmp_path):
    """The learning rate is so high that the last evaluation is not the best."""
    saved = {"save_strategy": "epoch", "load_best_model_at_end": True, "learning_rate": 0.3}
    trainer, trajectory = trained(tmp_path, **saved)
    told = metrics(trainer)
    best = max(told.values())
    assert told[max(told)] < best == trainer.state.best_metric
    last = trajectory.knowledge[list(trajectory.knowledge)[-1]]
    last.check(teacher_revision=revision(trainer.model.student))
    chosen = trainer.state.best_model_checkpoint
    last.check(teacher_revision=revision(type(trainer.model.student).from_pretrained(chosen)))


def test_moments_by_step_of_a_model_that_knows_users(tmp_path):
    split = set_split()
    trajectory = Trajectory(split, tmp_path / "out", "mf", k=4, steps=(2, 5), dtype=torch.float32)
    distiller = Distiller(mf(split))
    settings = arguments(tmp_path / "run", num_train_epochs=2, per_device_train_batch_size=32, tail_queries=False)
    DistillationTrainer(distiller, settings, dataset(split), callbacks=[trajectory]).train()
    loaded = load_trajectories(tmp_path / "out")
    assert list(loaded) == ["mf@0", "mf@1", "mf@2"] and loaded["mf@1"].tables["query_scores"].dtype == torch.float32
    revisions = {said.source.teacher_revision for said in loaded.values()}
    assert len(revisions) == 3 and loaded["mf@2"].source.teacher_revision == revision(distiller.student)
    short = Distiller(mf(split))
    stale = tmp_path / "out" / "moments" / "mf" / "step-99"
    shutil.copytree(tmp_path / "out" / "moments" / "mf" / "step-5", stale)
    DistillationTrainer(
        short, arguments(tmp_path / "again", max_steps=4, per_device_train_batch_size=32, tail_queries=False),
        dataset(split), callbacks=[trajectory],
    ).train()  # fmt: skip
    loaded = load_trajectories(tmp_path / "out")  # of the run before, nothing is left
    assert list(loaded) == ["mf@0", "mf@1"] and not stale.exists()
    assert loaded["mf@1"].source.teacher_revision == revision(short.student)


def test_no_moment_by_step_comes_after_the_best_model(tmp_path):
    """As a curriculum it would lead beyond what the teacher ends with, and the best itself would come twice."""
    trajectory = Trajectory(SPLIT, tmp_path / "out", "gnn", k=5, steps=range(3, 30, 3))
    saved = {"save_strategy": "epoch", "load_best_model_at_end": True, "learning_rate": 0.3}
    trainer, _ = trained(tmp_path, trajectory=trajectory, **saved)
    best, kept = trainer.state.best_global_step, tmp_path / "out" / "moments" / "gnn"
    assert best in trajectory.steps and best < trainer.state.global_step
    assert {path.name for path in kept.iterdir()} == {f"step-{step}" for step in trajectory.steps if step < best}
    revisions = [said.source.teacher_revision for said in trajectory.knowledge.values()]
    assert len(set(revisions)) == len(revisions) == best // 3


def test_a_killed_run_and_a_killed_export_go_on(tmp_path, monkeypatch):
    straight, _ = trained(tmp_path / "a")
    expected = load_trajectories(tmp_path / "a" / "knowledge")
    saved = {"save_strategy": "epoch"}

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # as the last moment is exported
        real = Trajectory._export
        patch.setattr(
            Trajectory, "_export", lambda self, model, number: (killed if number == 2 else real)(self, model, number)
        )
        trained(tmp_path / "b", **saved)
    folder = tmp_path / "b" / "run"
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "b" / "knowledge").glob("gnn@[01]/query-*")}
    assert len(shards) == 2
    trained(tmp_path / "b", resume=True, **saved)  # nothing is left to train
    again = load_trajectories(tmp_path / "b" / "knowledge")
    assert again.keys() == expected.keys() and all(same(again[name], expected[name]) for name in expected)
    assert all(path.stat().st_mtime_ns == then for path, then in shards.items())  # finished shards are kept

    moments = tmp_path / "b" / "knowledge" / "moments" / "gnn"
    early = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))[4]
    step = int(early.name.split("-")[1])
    for name in (f"step-{step + 1}", f"step-{step - 1}"):  # of a later life; half written
        shutil.copytree(next(moments.iterdir()), moments / name)
    write_manifest(moments / f"step-{step + 1}")
    (moments / f"step-{step - 1}" / "config.json").unlink()
    for number, path in ((int(p.name.split("-")[1]), p) for p in folder.glob("checkpoint-*")):
        if number > step:
            shutil.rmtree(path)
    resumed, _ = trained(tmp_path / "b", resume=True, **saved)
    last = load_trajectories(tmp_path / "b" / "knowledge")["gnn@2"]
    assert same(last, expected["gnn@2"]) and resumed.state.global_step == straight.state.global_step
    assert not {f"step-{step + 1}", f"step-{step - 1}"} & {path.name for path in moments.iterdir()}


def test_too_few_moments_are_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        _, trajectory = trained(tmp_path, num_train_epochs=1)
    assert (
        list(trajectory.knowledge) == ["gnn@0"]
        and "gnn has 0 moments before the last, at [] of the final metric, not 2" in caplog.text
    )


def test_moments_far_from_what_was_asked_for_are_told(tmp_path, caplog):
    near = Trajectory(SPLIT, tmp_path / "a", "gnn", k=5, fractions=(0.7, 0.9))
    trained(tmp_path / "near", trajectory=near)
    assert [abs(share - part) < 0.15 for share, part in zip(near.shares, near.fractions, strict=True)] == [True, True]
    assert not caplog.text
    far = Trajectory(SPLIT, tmp_path / "b", "gnn", k=5, fractions=(0.3, 0.9))  # the first look finds more
    trained(tmp_path / "far", trajectory=far)
    assert far.shares == near.shares and far.shares[0] > 0.3 + 0.15
    assert f"gnn has 2 moments before the last, at {[round(share, 2) for share in far.shares]}" in caplog.text


def test_an_evaluation_outside_of_training_is_no_moment(tmp_path):
    trajectory = Trajectory(SPLIT, tmp_path / "knowledge", "gnn")
    trainer = DistillationTrainer(
        Distiller(tiny_sasrec(SPLIT)), arguments(tmp_path), *parts(SPLIT), callbacks=[trajectory]
    )
    trainer.evaluate()
    assert not (tmp_path / "knowledge").exists()


def test_kind_errors(tmp_path):
    with pytest.raises(ConfigError, match="eval_strategy"):
        trained(tmp_path, eval_strategy="no")
    for wrong in ({"fractions": (0.5, 0.3)}, {"fractions": (0.5, 1.0)}, {"steps": (0, 5)}, {"steps": (5, 5)}):
        with pytest.raises(ConfigError, match="must rise"):
            Trajectory(SPLIT, tmp_path, "gnn", **wrong)
    for name in ("", "gnn@1", "a/b"):
        with pytest.raises(ConfigError, match="name holds no '@'"):
            Trajectory(SPLIT, tmp_path, name)
    with pytest.raises(KnowledgeError, match="no folder like 'gnn@0'"):
        load_trajectories(tmp_path)

"""The loop of teacher and student: what it leaves, that a crash or another process changes nothing, what is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from seqkd.continual import evolution
from seqkd.continual.evolution import Evolution
from seqkd.continual.fit import part_of
from seqkd.errors import ConfigError, DataError
from seqkd.evaluation.consensus import consensus_metrics
from seqkd.evaluation.stream import block_metrics

from .small import FIT, config, stream


def weights(folder, k, stage):
    return Evolution(folder).model(k, stage).state_dict()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run over three blocks."""
    folder = tmp_path_factory.mktemp("run")
    run = Evolution(folder, config())
    for block in stream():
        run.step(block)
    return folder


STAGES = ("block", "generated", "measured", "student", "teachers/lightgcn")


def test_every_block_leaves_its_stages_with_what_they_took(finished):
    run = Evolution(finished)
    assert [block.number for block in run.blocks] == [0, 1, 2]
    for k in range(3):
        told = dict(run.ledger(k).costs())
        assert set(told) == {*STAGES, *(("plasticity", "stability") if k else ())}
        assert all(cost["seconds"] >= 0 and cost["peak_memory_mb"] > 0 for cost in told.values())
        assert told["student"]["bytes_written"] > 1000
    assert not list(finished.rglob("*.partial")) and not list(finished.rglob("checkpoint-*"))


def test_models_grow_with_the_stream(finished):
    for k, block in enumerate(stream()):
        for stage in ("student", "generated", "teachers/lightgcn"):
            model = Evolution(finished).model(k, stage)
            assert model.catalogue == block.catalogue and model.users == block.users


def test_the_proxies_are_of_the_students_generated_before(finished):
    assert same(weights(finished, 1, "stability"), weights(finished, 0, "generated"))
    for name, retain in (("stability", 0.9), ("plasticity", 0.0)):
        old, new = weights(finished, 1, name), weights(finished, 1, "generated")
        made = weights(finished, 2, name)
        known = len(old["item_embedding.weight"])
        expected = retain * old["item_embedding.weight"] + (1 - retain) * new["item_embedding.weight"][:known]
        torch.testing.assert_close(made["item_embedding.weight"][:known], expected)
        assert torch.equal(made["item_embedding.weight"][known:], new["item_embedding.weight"][known:])


def test_matrices_have_a_row_for_each_block(finished):
    told = Evolution(finished).matrices("recall@5")
    assert set(told) == {"student", "generated", "teachers/lightgcn"}
    assert [len(row) for row in told["student"].rows] == [1, 2, 3]
    assert told["teachers/lightgcn"].h_mean(2) > 0.3  # of 36 items a user likes a third


def test_the_better_of_the_last_students_is_served(finished):
    run, blocks = Evolution(finished), stream()
    on_valid = {
        stage: sum(block_metrics(run.model(2, stage), b, blocks[2], part="valid", ks=(5,))["recall@5"] for b in blocks)
        for stage in ("student", "generated")
    }
    better = "generated" if on_valid["generated"] >= on_valid["student"] else "student"
    assert same(run.student.state_dict(), weights(finished, 2, better))
    user = blocks[2].users.item_ids[-1]
    assert len(run.student.recommend([[]], 3, users=[user]).item_ids[0]) == 3


class Crash(Exception):
    pass


@pytest.mark.parametrize("stage", ["student", "teachers/lightgcn", "generated"])
def test_a_crash_in_any_stage_changes_nothing(finished, stage, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "2")
    run, saved = Evolution(folder), Evolution._saved
    served = run.student.state_dict()

    def crashes(self, model, place, noted):
        if place.name.startswith(stage.split("/")[-1]):
            (place / "half.txt").write_text("written before the end")
            raise Crash
        return saved(self, model, place, noted)

    monkeypatch.setattr(Evolution, "_saved", crashes)
    with pytest.raises(Crash):
        run.step(stream()[2])
    assert not (folder / "2" / stage).exists()
    expected = served if stage == "student" else weights(finished, 2, "student")  # the fast update is served at once
    assert same(run.student.state_dict(), expected)
    monkeypatch.undo()
    Evolution(folder).step(stream()[2])
    assert not list((folder / "2").rglob("half.txt"))
    for name in ("student", "teachers/lightgcn", "generated"):
        assert same(weights(folder, 2, name), weights(finished, 2, name))


def test_a_student_far_below_the_frozen_one_is_refused(finished, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "2")
    told = iter([0.1, 0.1, 0.1, 0.3])  # the student on three blocks, the frozen one on the last
    monkeypatch.setattr(Evolution, "_noted", lambda *_: [0.3, 0.3])
    monkeypatch.setattr(evolution, "block_metrics", lambda *_, **__: {"recall@5": next(told)})
    shutil.rmtree(folder / "student")
    shutil.copytree(folder / "1" / "student", folder / "student")
    run = Evolution(folder)
    with pytest.raises(DataError, match=r"0\.1000 .* has 0\.3000"):
        run.step(stream()[2])
    assert same(run.student.state_dict(), weights(folder, 1, "student"))
    assert "0.1000" in json.loads((folder / "2.refused" / "refused.json").read_text())["why"]
    monkeypatch.undo()
    run.step(stream()[2])  # the same block once more
    assert [block.number for block in run.blocks] == [0, 1, 2]


def test_a_student_is_compared_with_the_one_that_is_served(finished, tmp_path, monkeypatch):
    """After block 1 that is the updated one (.1), for the distilled one is worse (.05), as is block 2's (.05)."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "2")
    noted = {"student": [0.1, 0.1], "generated": [0.05, 0.05]}
    monkeypatch.setattr(Evolution, "_noted", lambda _, k, stage: noted[stage])
    monkeypatch.setattr(evolution, "block_metrics", lambda *_, **__: {"recall@5": 0.05})
    with pytest.raises(DataError, match=r"0\.0500 .* has 0\.0833"):
        Evolution(folder).step(stream()[2])


def test_unlike_teachers_speak_together(tmp_path):
    """A graph and an autoencoder, whose scores cannot be compared, teach as one and are measured as one."""
    graph = {"type": "lightgcn", "model": {"hidden_size": 8, "num_layers": 2}}
    encoder = {"type": "multvae", "model": {"hidden_size": 8, "latent_size": 4}}
    rrd = {**FIT, "methods": {"rrd": {"interesting": 4, "uninteresting": 4, "list_length": 10}}}
    run = Evolution(tmp_path, config(teachers={"graph": graph, "encoder": encoder}, generate=rrd, update_teacher=FIT))
    for block in stream()[:2]:
        run.step(block)
    told = run.matrices("recall@5")
    assert {"teachers", "teachers/graph", "teachers/encoder"} < set(told) and len(told["teachers"]) == 2
    models = [run.model(1, f"teachers/{name}") for name in ("graph", "encoder")]
    rows = part_of(stream()[0], "test", stream()[1], models[0])
    assert told["teachers"].rows[1][0] == pytest.approx(consensus_metrics(models, rows, (5,))["recall@5"])
    assert "teachers together" in run.report()


def test_another_block_than_the_next_is_refused(finished):
    with pytest.raises(DataError, match="waits for 3"):
        Evolution(finished).step(stream()[1])


def test_killed_while_a_student_is_replaced_the_old_one_is_still_served(finished, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    served = Evolution(folder).student.state_dict()
    (folder / "student").rename(folder / "student.old")
    assert same(Evolution(folder).student.state_dict(), served)
    Evolution(folder)._serve(2, "student")
    assert same(Evolution(folder).student.state_dict(), weights(finished, 2, "student"))


def test_a_run_keeps_its_configuration(finished, tmp_path):
    assert Evolution(finished).config == config()
    with pytest.raises(ConfigError, match="another configuration"):
        Evolution(finished, config(seed=1))
    with pytest.raises(ConfigError, match="no run"):
        Evolution(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": {"type": "unisrec"}}, r"student\.type"),
        ({"teachers": {}}, "no teacher"),
        ({"update_student": {"methods": {"replai": {}}}}, "replai"),
        ({"graph": "all"}, "graph"),
        ({"stability": 1.5}, "stability"),
        ({"metric": "recall@7"}, "recall@7"),
        ({"studant": {}}, "studant"),
        ({"base": {"patience": 1, "epochs": 3}}, "epochs"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        config(**changes)

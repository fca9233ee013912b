"""Where a run can stop, and what is refused without harm."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from seqkd.continual.evolution import Evolution
from seqkd.data.stream_rows import whole
from seqkd.errors import ConfigError, DataError, KnowledgeError, SeqKDError
from seqkd.evaluation.stream import block_metrics

from .small import FIT, TRAINING, config, stream


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


SAS = {"type": "sasrec", "model": {"hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 20}}
RRD = {"interesting": 4, "uninteresting": 4, "list_length": 10}
HISTORIES = {"queries": "positions", "max_length": 20}
BY_RRD = {**FIT, "methods": {"rrd": RRD}, "weights": {"rrd": 0.01}}


def test_a_stream_of_sequences(tmp_path):
    """SASRec taught by SASRec: lists of positions and of the ends of absent users' histories, replay of histories."""
    run = Evolution(tmp_path, config(student=SAS, teachers={"wide": SAS}, generate=BY_RRD, blocks=HISTORIES))
    for block in stream("positions"):
        run.step(block)
    assert [len(row) for row in run.matrices("recall@5")["student"].rows] == [1, 2, 3]
    student = run.student
    assert student.catalogue == stream("positions")[2].catalogue
    assert not same(run.model(2, "student"), run.model(1, "generated")) or not same(
        run.model(1, "student"), run.model(0, "generated")
    )


def test_labels_alone_generate_a_student_whom_nobody_teaches(tmp_path):
    run = Evolution(tmp_path, config(generate=FIT))
    run.step(stream()[0])
    assert run.matrices("recall@5")["generated"].rows[0][0] > 0.3


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run over two blocks."""
    folder = tmp_path_factory.mktemp("two")
    run = Evolution(folder, config())
    for block in stream()[:2]:
        run.step(block)
    return folder


def copied(two, tmp_path):
    shutil.copytree(two, tmp_path / "run")
    return tmp_path / "run"


class Crash(Exception):
    pass


@pytest.mark.parametrize("k", [0, 1])
def test_a_crash_before_the_last_student_is_served_loses_nothing(k, two, tmp_path, monkeypatch):
    folder = copied(two, tmp_path)
    for later in range(k, 2):
        shutil.rmtree(folder / str(later))
    shutil.rmtree(folder / "student")
    run, serve = Evolution(folder), Evolution._serve

    def crashes(self, number, stage):
        if stage == "generated":
            raise Crash
        serve(self, number, stage)

    monkeypatch.setattr(Evolution, "_serve", crashes)
    monkeypatch.setattr(Evolution, "_noted", lambda self, k, stage: [float(stage == "generated")])
    with pytest.raises(Crash):
        run.step(stream()[k])
    assert len(run.blocks) == k, "not learned before it is served"
    monkeypatch.setattr(Evolution, "_serve", serve)
    Evolution(folder).step(stream()[k])
    assert same(run.student, run.model(k, "generated")) and len(run.blocks) == k + 1


def test_the_first_teacher_is_chosen_by_the_run_s_metric(two):
    """Not by recall@20, the default of a stage."""
    run = Evolution(two)
    noted = dict(run.ledger(0).costs())["teachers/lightgcn"]
    model, block = run.model(0, "teachers/lightgcn"), stream()[0]
    assert noted["best"] == pytest.approx(block_metrics(model, block, block, part="valid", ks=(5,))["recall@5"])


def test_a_block_that_was_begun_with_other_data(two, tmp_path):
    """Of the same stream, with the same ids: another draw of what is held out."""
    folder = copied(two, tmp_path)
    shutil.rmtree(folder / "1" / "measured")
    other = whole(stream()[:2])  # what is trained on is another
    with pytest.raises(DataError, match="begun with other interactions or items"):
        Evolution(folder).step(other)
    assert (folder / "1" / "student").exists() and not (folder / "1.refused").exists()
    Evolution(folder).step(stream()[1])
    assert len(Evolution(folder).blocks) == 2


def test_a_block_of_another_stream_is_refused_before_anything_is_written(two):
    other = stream(blocks=3)[2]
    with pytest.raises(DataError, match="Give blocks of one stream"):
        Evolution(two).step(other)
    assert not (two / "2").exists() and not (two / "2.refused").exists()


def test_cutoffs_beyond_the_catalogue_are_refused_before_teachers_are_trained(tmp_path):
    with pytest.raises(ConfigError, match="say nothing"):
        Evolution(tmp_path, config(cutoffs=[5, 36])).step(stream()[0])
    assert not (tmp_path / "0").exists()


def test_models_of_pairs_are_refused_on_histories_and_the_other_way_round(tmp_path):
    """A sequential model would find no label in a set, and rehearse instead of learning."""
    with pytest.raises(ConfigError, match=r"block 0 asks 'positions', which does not suit \['student', 'teachers.l"):
        Evolution(tmp_path, config()).step(stream("positions")[0])
    histories = config(student=SAS, teachers={"wide": SAS}, generate=BY_RRD, blocks=HISTORIES)
    with pytest.raises(ConfigError, match=r"block 0 asks 'users', which does not suit \['student', 'teachers.wide'\]"):
        Evolution(tmp_path, histories).step(stream()[0])
    assert not list(tmp_path.iterdir())  # another configuration may be tried in the same folder


@pytest.mark.parametrize("stage", ["update_student", "update_teacher", "generate"])
def test_a_loss_that_is_no_number_refuses_the_block(stage, two, tmp_path):
    """The student of the last good block stays; where the fast update was accepted before, that is it."""
    folder = copied(two, tmp_path)
    shutil.rmtree(folder / "1")
    shutil.rmtree(folder / "student")
    shutil.copytree(folder / "0" / "generated", folder / "student")
    settings = json.loads((folder / "config.json").read_text())
    settings[stage]["training"] = {**TRAINING, "learning_rate": 1e30}
    (folder / "config.json").write_text(json.dumps(settings))
    run = Evolution(folder)
    with pytest.raises(SeqKDError, match="not finite"):
        run.step(stream()[1])
    assert [block.number for block in run.blocks] == [0] and not (folder / "1").exists()
    assert "not finite" in json.loads((folder / "1.refused" / "refused.json").read_text())["why"]
    served = folder / "0" / "generated" if stage == "update_student" else folder / "1.refused" / "student"
    assert same(run.student, type(run.student).from_pretrained(served))


def test_a_teacher_that_cannot_say_what_a_method_wants_is_named(tmp_path):
    run = Evolution(tmp_path, config(student=SAS, teachers={"wide": SAS}, blocks=HISTORIES))
    with pytest.raises(KnowledgeError, match="item_topk lists users, and SASRecModel knows none"):
        run.step(stream("positions")[0])


def test_a_report_of_what_was_not_measured_is_refused(two, tmp_path):
    with pytest.raises(ConfigError, match="'recall@7' was not measured"):
        Evolution(two).report("recall@7")
    with pytest.raises(ConfigError, match="no block yet"):
        Evolution(tmp_path, config()).report()


def test_a_report_of_a_run(two, tmp_path):
    text = Evolution(copied(two, tmp_path)).report("ndcg@10")
    assert text.startswith("# mf taught by lightgcn") and "NDCG@10" in text and "## teacher lightgcn: a[k][i]" in text
    assert (tmp_path / "run" / "stream.png").exists()

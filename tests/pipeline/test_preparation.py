from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seqkd import pipeline
from seqkd.config import ModelConfig, TeacherConfig, TextConfig
from seqkd.data.interactions import ITEMS
from seqkd.data.splits import load_markets
from seqkd.errors import ConfigError
from seqkd.pipeline.preparation import check_images
from tests.pipeline.small import WIDE


def test_text_is_encoded_when_a_teacher_reads_it(experiment, monkeypatch):
    """In catalogue order, with the words of the item."""
    asked = []

    def fake(texts, name, **settings):
        asked.append((texts, name, settings["pooling"], settings["max_length"]))
        return np.arange(len(texts) * 3, dtype=np.float32).reshape(-1, 3) + 1

    monkeypatch.setattr(pipeline.domains, "encode_texts", fake)
    text = TextConfig(encoder="some/encoder", pooling="cls", max_length=7, fields=("title",))
    domains = pipeline.prepare(replace(experiment, teachers={"t": TeacherConfig(type="unisrec")}, text=text))
    assert [len(texts) for texts, *_ in asked] == [40, 40] and asked[0][1:] == ("some/encoder", "cls", 7)
    market = load_markets(pipeline.domains.synthetic_market())["books"]
    catalogue = domains["books"].split.catalogue
    assert list(catalogue.item_ids) == market[ITEMS]["item_id"][:]
    assert asked[0][0][5].startswith(market[ITEMS][5]["title"])
    # 1, 2, 3 have a root mean square of sqrt(14 / 3)
    assert pipeline.domains.text_features(domains["books"], text)[0] == pytest.approx(
        np.array([1, 2, 3]) / np.sqrt(14 / 3)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"lerning_rate": 1}}, "training: .*'lerning_rate'.*'learning_rate'"),
        ({"student": ModelConfig(model={"hiden_size": 8})}, "student.model: .*'hiden_size'.*'hidden_size'"),
        ({"teachers": {"w": TeacherConfig(model={"hiden_size": 8})}}, "teachers.w.model: .*'hidden_size'"),
        ({"teachers": {"w": TeacherConfig(type="gru4rec")}}, "teachers.w.type must be .* got 'gru4rec'"),
        ({"teachers": {"w": TeacherConfig(stage="fine")}}, "teachers.w.stage must be .* got 'fine'"),
        ({"teachers": {"w": TeacherConfig(folds=2, members=2)}}, "teachers.w: members=2 and folds=2"),
        ({"method": {"temprature": 1}}, "method: .*'temprature'.*'temperature'"),
        ({"method": {"curriculum": {"paceing": "sqrt"}}}, "method.curriculum: .*'paceing'.*'pacing'"),
        ({"method": {"candidates": "all"}}, "candidates must be one of"),
        ({"student": ModelConfig(type="gru4rec")}, "student.type must be .*'sasrec', 'mf', .* got 'gru4rec'"),
        ({"student": ModelConfig(type="unisrec")}, "student.type must be .* got 'unisrec'"),
        ({"student": ModelConfig(type="mf", model={"nun_negatives": 8})}, "student.model: .*'num_negatives'"),
        (
            {"student": ModelConfig(type="deepfm"), "method": {"candidates": "catalogue"}},
            "DeepFMModel .*candidates='list' .* or candidates='in_batch'",
        ),
        ({"student": ModelConfig(type="deepfm", model={"loss_type": "softmax"})}, "loss_type"),
        ({"student": ModelConfig(type="mf"), "method": {}}, "MFModel reads no histories .*mask_history=False"),
        ({"student": ModelConfig(type="lightgcn"), "method": {}}, "LightGCNModel .*mask_history=False"),
        (
            {"student": ModelConfig(type="lightgcn", model={"loss_type": "softmax"})},
            "reg_weight would be ignored",
        ),
        (
            {"student": ModelConfig(model={"hidden_size": 128}), "teachers": {"w": TeacherConfig(model=WIDE)}},
            "the 128 columns .* together are 16 wide.*warm_start",
        ),
    ],
)
def test_what_is_misspelt_is_named_before_anything_is_loaded(experiment, change, message):
    experiment = replace(experiment, **{"teachers": {"w": TeacherConfig()}, **change})
    with pytest.raises(ConfigError, match=message):
        experiment.check()
        pipeline.check(experiment)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("mf", {"mask_history": False}),
        ("lightgcn", {"candidates": "catalogue"}),
        ("fm", {}),
        ("fm", {"candidates": "catalogue"}),
        ("deepfm", {}),
        ("deepfm", {"candidates": "list"}),
    ],
)
def test_what_can_be_taught_passes(experiment, kind, method):
    experiment = replace(experiment, student=ModelConfig(type=kind, model={"hidden_size": 8}), method=method)
    experiment.check()
    pipeline.check(experiment)


def test_a_student_is_not_asked_for_users_it_cannot_know(experiment):
    """In time, there are users who begin after training has ended."""
    late = {"protocol": "temporal", "method": {"candidates": "catalogue"}}
    with pytest.raises(ConfigError, match=r"'mf', which answers for .* training only, but \d+ rows of the"):
        pipeline.prepare(replace(experiment, student=ModelConfig(type="mf", model={"hidden_size": 8}), **late))
    pipeline.prepare(replace(experiment, student=ModelConfig(type="lightgcn", model={"hidden_size": 8}), **late))


READY = TeacherConfig(pretrained="somewhere", stage="zero_shot")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "random"}, r"protocol must be one of .*'ratio'\), got 'random'"),
        (
            {"protocol": "ratio"},
            r"student.type: .*as a set. A sasrec learns .*\('mf', .*protocol to loo or temporal",
        ),
        (
            {"protocol": "ratio", "student": ModelConfig(type="mf"), "teachers": {"w": TeacherConfig()}},
            "teachers.w: .* A sasrec learns what comes next.*stage: zero_shot.*loo or temporal",
        ),
        (
            {"protocol": "ratio", "teachers": {"u": TeacherConfig(type="unisrec", pretraining={}, stage="zero_shot")}},
            "teachers.u: .* A unisrec learns",  # it would be pre-trained here
        ),
    ],
)
def test_sets_are_not_taught_to_who_learns_what_comes_next(experiment, change, message):
    with pytest.raises(ConfigError, match=message):
        pipeline.check(replace(experiment, **{"teachers": {"w": READY}, **change}))


def test_a_teacher_is_not_pretrained_on_sets_either(experiment):
    """There, the student may be any, and is not looked at."""
    pretraining = TeacherConfig(type="unisrec", pretraining={"num_train_epochs": 1})
    with pytest.raises(ConfigError, match=r"teachers\.u: "):
        pipeline.check(replace(experiment, protocol="ratio", teachers={"u": pretraining}), distils=False)


def test_resuming_an_experiment_is_refused_and_not_ignored(experiment):
    with pytest.raises(ConfigError, match="does not resume"):
        pipeline.check(replace(experiment, training={"resume_from_checkpoint": "runs/x"}))


def test_a_folder_of_images_is_never_passed_over(experiment, books, tmp_path):
    def refused(message, **domains):
        with pytest.raises(ConfigError, match=message):
            check_images(str(tmp_path / "images"), domains)

    bare = replace(books, items=books.items.remove_columns(["image_features"]))
    refused("which is no folder", books=bare)
    (tmp_path / "images").mkdir()
    refused("has no folder for any of the domains", books=bare, films=books)
    refused("bring image vectors", books=books)
    (tmp_path / "images" / "books").mkdir()
    check_images(str(tmp_path / "images"), {"books": bare, "films": books})

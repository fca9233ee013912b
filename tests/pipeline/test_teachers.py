from __future__ import annotations

import pytest
import torch

from seqkd import pipeline
from seqkd.errors import CheckpointError, ConfigError
from tests.pipeline.small import untrained, with_teacher


@pytest.fixture
def trained(monkeypatch):
    """Instead of training: what was to be trained, on which users, with which seed."""
    calls = []

    class Done:
        def __init__(self, model):
            self.model = type("Distiller", (), {"student": model})

    def fake(model, domain, arguments, **settings):
        calls.append((domain.split.train["user_id"][:], arguments.seed, arguments.output_dir))
        return Done(model)

    monkeypatch.setattr(pipeline.teachers, "train", fake)
    return calls


def test_the_member_of_a_fold_never_sees_its_users(experiment, books, trained):
    members = pipeline.train_teacher(with_teacher(experiment, folds=3), books, "wide", 5)
    users = books.split.train["user_id"][:]
    assert len(members) == len(trained) == 3
    left_out = [set(users) - set(seen) for seen, _, _ in trained]
    assert [len(fold) for fold in left_out] == [20, 20, 20]
    assert set.union(*left_out) == set(users)
    assert left_out[1] == set(users[1::3])
    assert len({folder for *_, folder in trained}) == 3


def test_members_see_everyone_and_differ_by_seed(experiment, books, trained):
    experiment = with_teacher(experiment, members=2)
    for seed in (0, 1):
        assert len(pipeline.train_teacher(experiment, books, "wide", seed)) == 2
    assert [seed for _, seed, _ in trained] == [0, 1, 2, 3]  # no seed twice, over members and experiment seeds
    assert len({folder for *_, folder in trained}) == 4
    assert all(seen == books.split.train["user_id"][:] for seen, *_ in trained)


def test_a_zero_shot_teacher_is_not_trained(experiment, books, trained):
    assert len(pipeline.train_teacher(with_teacher(experiment, stage="zero_shot"), books, "wide", 0)) == 1
    assert trained == []


def test_a_teacher_can_come_from_a_folder(experiment, books, tmp_path):
    (teacher,) = untrained(books, 4)
    teacher.save_pretrained(tmp_path / "teacher")
    loaded = pipeline.new_teacher(with_teacher(experiment, pretrained=str(tmp_path / "teacher")), books, "wide", 0)
    assert torch.equal(loaded.item_embeddings(), teacher.item_embeddings())


def test_a_teacher_that_is_nowhere_is_told_by_its_setting(experiment, books, tmp_path):
    """Before anything is read, and where it is loaded."""
    (teacher,) = untrained(books, 4)
    teacher.save_pretrained(tmp_path / "models" / "teacher")
    for name, says in (
        ("nowhere", "there is no folder 'nowhere', and no such model of the Hub"),
        (str(tmp_path / "models" / "teachr"), r"there is no teachr in .*, which holds \['teacher'\]"),
        (str(tmp_path / "models"), r"it has no config.json. Did you mean .*teacher\?"),
    ):
        lost = with_teacher(experiment, pretrained=name)
        for ask in (
            lambda lost=lost: pipeline.prepare(lost),
            lambda lost=lost: pipeline.new_teacher(lost, books, "wide", 0),
        ):
            with pytest.raises(ConfigError, match=rf"^teachers\.wide\.pretrained: .*{says}.* leave it out") as refused:
                ask()
            assert "\n" not in str(refused.value) and "internet" not in str(refused.value)
    (tmp_path / "models" / "teacher" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is cut or damaged"):
        pipeline.new_teacher(with_teacher(experiment, pretrained=f"{tmp_path}/models/teacher"), books, "wide", 0)

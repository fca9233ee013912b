from __future__ import annotations

from pathlib import Path

import pytest

from seqkd.batches.curriculum import Curriculum
from seqkd.config import Experiment, ModelConfig, TeacherConfig, read_experiment
from seqkd.errors import ConfigError
from seqkd.methods.ckd_mdsr import CKDMDSRConfig
from seqkd.pipeline import KINDS
from seqkd.settings import make
from seqkd.training_args import DistillationArguments

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.fixture
def read(tmp_path):
    def reader(text, *arguments):
        path = tmp_path / "experiment.yaml"
        path.write_text(text, encoding="utf-8")
        return read_experiment(["--config", str(path), *arguments])

    return reader


def test_without_teachers_there_is_nothing_to_distil():
    with pytest.raises(ConfigError, match="there is no teacher"):
        read_experiment([])


def test_without_arguments_it_is_the_default_experiment(tmp_path):
    (tmp_path / "default.yaml").write_text("teachers: {w: {type: sasrec}}")
    experiment = read_experiment([], default=tmp_path / "default.yaml")
    assert list(experiment.teachers) == ["w"]
    experiment.teachers = {}
    experiment.text.fields = tuple(experiment.text.fields)  # read as a list
    assert experiment == Experiment()
    assert experiment.data == "synthetic" and experiment.seeds == [0]


def test_a_file_fills_the_fields_and_arguments_win(read):
    experiment = read(
        """
        data: [a, b]
        student: {model: {hidden_size: 32}, training: {learning_rate: 0.5}}
        teachers:
          wide: {model: {hidden_size: 128}, members: 3}
          text: {type: unisrec, pretraining: {num_train_epochs: 5}, folds: 2}
        method: {candidates: catalogue, curriculum: null}
        seeds: [1, 2]
        """,
        *("--student.model.hidden_size", "8", "--seeds", "[3]", "--warm_start", "false"),
    )
    assert experiment.data == ["a", "b"] and experiment.seeds == [3] and experiment.warm_start is False
    assert experiment.student == ModelConfig(model={"hidden_size": 8}, training={"learning_rate": 0.5})
    assert experiment.teachers == {
        "wide": TeacherConfig(model={"hidden_size": 128}, members=3),
        "text": TeacherConfig(type="unisrec", pretraining={"num_train_epochs": 5}, folds=2),
    }
    assert experiment.method == {"candidates": "catalogue", "curriculum": None}


@pytest.mark.parametrize(
    "path", [path for path in sorted(CONFIGS.rglob("*.yaml")) if path.parent.name != "ccd"], ids=lambda path: path.name
)
def test_the_shipped_configs_hold_only_fields_that_exist(path):
    experiment = read_experiment(["--config", str(path)])
    for training in (experiment.training, experiment.distillation, experiment.student.training):
        make(DistillationArguments, {**training, "use_cpu": True}, "training", output_dir="outputs")
    kind = KINDS[experiment.student.type].config
    make(kind, {**experiment.student.model, **experiment.distilled_model}, "student")
    made = experiment.method.get("curriculum", {})
    curriculum = None if made is None else make(Curriculum, made, "curriculum")
    make(CKDMDSRConfig, {**experiment.method, "curriculum": curriculum}, "method")
    assert experiment.teachers

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from seqkd.batches.curriculum import Curriculum
from seqkd.config import Experiment, ModelConfig, TeacherConfig, TextConfig, check_types, make, parse, read_experiment
from seqkd.continual.experiment import StreamExperiment
from seqkd.continual.fit import FitConfig
from seqkd.errors import ConfigError
from seqkd.methods import METHODS
from seqkd.methods.ckd_mdsr import CKDMDSRConfig
from seqkd.models.sasrec import SASRecConfig
from seqkd.pipeline import KINDS
from seqkd.training_args import DistillationArguments

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


@pytest.fixture
def read(tmp_path):
    def reader(text, *arguments):
        path = tmp_path / "experiment.yaml"
        path.write_text(text, encoding="utf-8")
        return read_experiment(["--config", str(path), *arguments])

    return reader


def refusal(capsys, read, text, *arguments):
    with pytest.raises(SystemExit) as stop:
        read(text, *arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


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


def test_numbers_that_yaml_1_1_reads_as_words_are_numbers(read):
    """`1e-4` has no point, so a plain YAML reader makes a string of it."""
    experiment = read(
        "training: {learning_rate: 1e-4}\nmethod_weight: 1e-1\nteachers: {a: {model: {temperature: 7e-2}}}"
    )
    assert experiment.training == {"learning_rate": 1e-4} and isinstance(experiment.training["learning_rate"], float)
    assert experiment.method_weight == 0.1
    assert experiment.teachers["a"].model == {"temperature": 0.07}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("studnet: {type: sasrec}", "studnet"),
        ("student: {tpye: sasrec}", "tpye"),
        ("teachers: {wide: {membrs: 2}}", "membrs"),
        ("text: {poolng: mean}", "poolng"),
        ("method_weight: much", "much"),
        ("seeds: 3", "seeds"),
        ("training: [1]", "training"),
        ("domains: {a: 1}", "domains"),
    ],
)
def test_unknown_names_and_wrong_types_are_refused_by_name(read, capsys, text, name):
    assert name in refusal(capsys, read, text)


@pytest.mark.parametrize(
    ("text", "arguments", "says"),
    [
        ("studnet: {type: sasrec}", [], "there is no setting 'studnet'. Did you mean 'student'?"),
        ("student: {tpye: sasrec}", [], "there is no setting 'tpye' in student. Did you mean 'type'?"),
        ("pooling: cls", [], "there is no setting 'pooling'. Did you mean 'text.pooling'?"),
        ("images: {zzz: 1}", [], "there is no setting 'zzz' in images. There are ['folder', 'encoder']."),
        ("seeds: [1]", ["--method_wieght", "1"], "there is no setting 'method_wieght'. Did you mean 'method_weight'?"),
        ("seeds: [1]", ["--student.modle", "{}"], "there is no setting 'modle' in student. Did you mean 'model'?"),
        ("student: 3", [], "student holds settings, type, model, training, but is 3 here."),
        ("text: null", [], "text holds settings, encoder, pooling, max_length, fields, but is None here."),
        ("method_weight: much", [], None),
        ("domains: {a: 1}", [], None),
        ("a: [", [], None),
    ],
)
def test_what_is_wrong_is_one_line_with_the_closest_setting(read, capsys, text, arguments, says):
    told = refusal(capsys, read, text, *arguments)
    assert told.startswith("error: ") and told.count("\n") == 1 and told.endswith("\n")
    assert says is None or told == f"error: {says}\n"


def test_a_setting_of_a_teacher_gets_the_closest_one_of_teachers(read, capsys):
    told = refusal(capsys, read, "teachers: {wide: {membrs: 2}}")  # where it stands, not every jsonargparse tells
    assert re.fullmatch(r"error: there is no setting 'membrs'.* Did you mean '(teachers\.)?members'\?\n", told), told


def test_help_still_shows_every_setting(read, capsys):
    with pytest.raises(SystemExit) as stop:
        read_experiment(["--help"])
    assert stop.value.code == 0 and "--method_weight" in capsys.readouterr().out


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:builtins.open ['owned', 'w']",
        "!!python/object/new:pathlib.Path ['owned']",
        "!!python/name:os.system",
        "!!python/module:antigravity",
    ],
)
def test_yaml_that_builds_python_objects_is_refused_and_does_not_run(read, capsys, tmp_path, monkeypatch, tag):
    monkeypatch.chdir(tmp_path)
    assert "could not determine a constructor" in refusal(capsys, read, f"training: {tag}")
    assert not (tmp_path / "owned").exists()


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


@pytest.mark.parametrize(
    ("kind", "typo", "meant"),
    [
        (SASRecConfig, "hiden_size", "hidden_size"),
        (SASRecConfig, "hidden_dropout", "hidden_dropout_prob"),
        (DistillationArguments, "learning_rat", "learning_rate"),
        (DistillationArguments, "tail_query", "tail_queries"),
        (CKDMDSRConfig, "candidate", "candidates"),
        (Curriculum, "initial_competense", "initial_competence"),
    ],
)
def test_a_typo_gets_the_closest_name(kind, typo, meant):
    with pytest.raises(ConfigError, match=rf"here: {kind.__name__} has no field '{typo}'. Did you mean '{meant}'\?"):
        make(kind, {typo: 1}, "here")


def test_a_name_like_no_other_gets_no_hint():
    with pytest.raises(ConfigError) as refused:
        make(Curriculum, {"zzz": 1}, "method.curriculum")
    assert str(refused.value) == "method.curriculum: Curriculum has no field 'zzz'."


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"learning_rate": "abc"}, "learning_rate must be a number, got 'abc'"),
        ({"num_train_epochs": True}, "num_train_epochs must be a number, got True"),
        ({"per_device_eval_batch_size": "none"}, "per_device_eval_batch_size must be a whole number, got 'none'"),
        ({"max_steps": 2.5}, "max_steps must be a whole number, got 2.5"),
        ({"use_cpu": "yes"}, "use_cpu must be true or false, got 'yes'"),
        ({"save_total_limit": "none"}, "save_total_limit must be a whole number or null, got 'none'"),
        ({"history": 3}, "history must be text, got 3"),
        ({"metric_ks": 10}, "metric_ks must be a list, each a whole number, got 10"),
        ({"metric_ks": [10, "20"]}, "metric_ks must be a list, each a whole number, got"),
        ({"report_to": 3}, "report_to must be null or text or a list, each text, got 3"),
        ({"eval_strategy": "sometimes"}, "sometimes is not a valid IntervalStrategy"),
    ],
)
def test_a_training_argument_of_another_type_is_refused_by_name(settings, says):
    with pytest.raises(ConfigError) as refused:
        make(DistillationArguments, {"use_cpu": True, **settings}, "training", output_dir="outputs")
    assert str(refused.value).startswith(f"training: {says}") and "\n" not in str(refused.value)


def test_values_of_the_right_type_pass():
    fits = {
        "learning_rate": 1,
        "num_train_epochs": np.float64(2),
        "seed": np.int64(3),
        "metric_ks": [5],
        "run_name": None,
    }
    fits |= {"report_to": [], "optim": "sgd", "lr_scheduler_kwargs": {"a": 1}, "warmup_steps": 0.1, "use_cpu": True}
    made = make(DistillationArguments, fits, "training", output_dir="outputs")
    assert (made.learning_rate, made.num_train_epochs, made.seed, made.metric_ks) == (1, 2, 3, [5])


@pytest.mark.parametrize(
    "kind", [DistillationArguments, TeacherConfig, TextConfig, FitConfig, *(m.config_class for m in METHODS.values())]
)
def test_what_a_dataclass_has_by_default_is_of_its_type(kind):
    usual = {item.name: getattr(kind(), item.name) for item in fields(kind) if item.init}
    check_types(kind, usual, "here")


def test_methods_and_stages_are_checked_alike():
    with pytest.raises(ConfigError, match="method: temperature must be a number, got 'warm'"):
        make(CKDMDSRConfig, {"temperature": "warm"}, "method")
    with pytest.raises(ConfigError, match="base: patience must be a whole number, got None"):
        make(FitConfig, {"patience": None}, "base")
    with pytest.raises(ConfigError, match=r"model: .*'hidden_size'.* expected int, got str") as refused:
        make(SASRecConfig, {"hidden_size": "wide"}, "model")
    assert "\n" not in str(refused.value)


def test_make_fills_in_what_is_fixed_and_fixed_values_win():
    made = make(Curriculum, {"fraction": 0.5, "stages": 2}, "curriculum", stages=3)
    assert made == Curriculum(fraction=0.5, stages=3)


STREAM = """
cut: {blocks: 2}
run:
  student: {type: mf, model: {hidden_size: 4}}
  base: {training: {learning_rate: 1e-3}, patience: 7}
seeds: [3]
"""


def test_parse_reads_another_kind_of_experiment_through_and_through(tmp_path):
    path = tmp_path / "stream.yaml"
    path.write_text(STREAM, encoding="utf-8")
    more = ["--run.student.model.hidden_size", "8", "--baselines", "[frozen]"]
    experiment = parse(StreamExperiment, "A stream.", ["--config", str(path), *more])
    assert isinstance(experiment, StreamExperiment) and experiment.run.student == ModelConfig("mf", {"hidden_size": 8})
    assert experiment.run.base.training == {"learning_rate": 0.001} and experiment.run.base.patience == 7
    assert (experiment.cut, experiment.seeds, experiment.baselines) == ({"blocks": 2}, [3], ["frozen"])
    assert experiment.run.update_teacher == StreamExperiment().run.update_teacher, "the rest is as ever"
    assert parse(StreamExperiment, "A stream.", []) == StreamExperiment()


@pytest.mark.parametrize("arguments", [["--seeds", "[4]"], [], ["--seeds=[4]"]])
def test_parse_reads_the_default_file_unless_another_is_named(tmp_path, arguments):
    (tmp_path / "default.yaml").write_text(STREAM, encoding="utf-8")
    (tmp_path / "other.yaml").write_text("seeds: [9]", encoding="utf-8")
    experiment = parse(StreamExperiment, "", arguments, default=tmp_path / "default.yaml")
    assert experiment.cut == {"blocks": 2} and experiment.seeds == ([4] if arguments else [3])
    for named in (["--config", str(tmp_path / "other.yaml")], [f"--config={tmp_path / 'other.yaml'}"]):
        experiment = parse(StreamExperiment, "", named, default=tmp_path / "default.yaml")
        assert experiment.cut == {"blocks": 5} and experiment.seeds == [9]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("run: {studant: {type: mf}}", "studant"),
        ("run: {base: {patienc: 1}}", "patienc"),
        ("run: {margin: much}", "margin"),
    ],
)
def test_parse_names_what_is_wrong(tmp_path, capsys, text, name):
    (tmp_path / "stream.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        parse(StreamExperiment, "", ["--config", str(tmp_path / "stream.yaml")])
    assert stop.value.code == 2 and name in capsys.readouterr().err


def test_what_does_not_fit_together_is_an_error_of_ours(tmp_path):
    (tmp_path / "stream.yaml").write_text("run: {metric: recall@7}", encoding="utf-8")
    with pytest.raises(ConfigError, match="recall@7"):
        parse(StreamExperiment, "", ["--config", str(tmp_path / "stream.yaml")])

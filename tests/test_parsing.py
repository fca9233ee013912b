from __future__ import annotations

import re

import pytest

from seqkd.config import Experiment, ModelConfig
from seqkd.continual.experiment import StreamExperiment
from seqkd.errors import ConfigError
from seqkd.parsing import parse


@pytest.fixture
def read(tmp_path):
    def reader(text, *arguments):
        path = tmp_path / "experiment.yaml"
        path.write_text(text, encoding="utf-8")
        return parse(Experiment, "An experiment.", ["--config", str(path), *arguments])

    return reader


def refusal(capsys, read, text, *arguments):
    with pytest.raises(SystemExit) as stop:
        read(text, *arguments)
    assert stop.value.code == 2
    return capsys.readouterr().err


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
        parse(Experiment, "An experiment.", ["--help"])
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

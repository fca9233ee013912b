from __future__ import annotations

import dataclasses
import logging
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from transformers import BertConfig, BertModel

import seqkd
from seqkd import cli, pipeline
from seqkd.config import ModelConfig
from seqkd.continual import experiment
from seqkd.continual.evolution import Evolution
from seqkd.data.interactions import load_interactions
from seqkd.data.stream_cut import cut_stream
from tests.continual.small import config, market
from tests.tiny import ITEMS, tiny_sasrec, tiny_split

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_sasrec(tiny_split()).save_pretrained(folder)
    return folder


def write_log(folder: Path) -> Path:
    """Three users; u1 has a tie (a, b) and buys b twice; item z is in no interaction, e only in the last of u2."""
    log = [("u1", "a", 1), ("u1", "b", 1), ("u1", "c", 3), ("u1", "b", 4), ("u1", "d", 5)]
    log += [("u2", "a", 1), ("u2", "b", 2), ("u2", "c", 3), ("u2", "e", 4)]
    log += [("u3", "b", 9), ("u3", "a", 8)]
    lines = ["user_id,item_id,timestamp", *(",".join(map(str, row)) for row in log)]
    (folder / "interactions.csv").write_text("\n".join(lines) + "\n")
    (folder / "items.csv").write_text("item_id,title\n" + "".join(f"{item},the {item}\n" for item in "abcdez"))
    return folder


def test_doctor_names_versions_and_processes(capsys):
    assert cli.main(["doctor"]) == 0
    shown = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["torch"] == version("torch")
    assert shown["world size"].startswith("1 ")
    assert shown["Hub"].startswith("offline")  # conftest.py sets HF_HUB_OFFLINE
    assert "GB" in shown["free disk here"]


def test_check_counts_what_can_be_counted_by_hand(tmp_path, capsys):
    assert cli.main(["check", str(write_log(tmp_path))]) == 0
    out = capsys.readouterr().out
    shown = {name.strip(): value for name, value in re.findall(r"^  (\S.*?)\s{2,}(.+)$", out, re.MULTILINE)}
    counts = {name: int(value) for name, value in shown.items() if value.isdigit()}
    assert counts == {
        "users": 3,
        "items": 6,
        "interactions": 11,
        "cold items": 1,  # z
        "repeated interactions": 1,  # b of u1
        "tied timestamps": 1,  # a and b of u1
        "moved by sorting": 1,  # u3 is written newest first
        "users only in train": 1,  # u3 has two interactions
        "train rows": 3,
        "valid rows": 2,
        "test rows": 2,
    }
    # training holds u1: a b c, u2: a b, u3: a b, so d, e and z of 6 items are cold
    assert shown["cold share"].startswith("50.0%")
    assert "Leave-one-out puts the last item of every user aside" in out


def test_check_knows_every_protocol(tmp_path, capsys):
    folder = str(write_log(tmp_path))
    assert cli.main(["check", folder, "--protocol", "ratio"]) == 0
    out = capsys.readouterr().out
    # b of u1 counts once, so users have 4, 4 and 2 items: below 5 nothing is put aside
    assert re.search(r"users only in train +3$", out, re.MULTILINE) and "valid rows" not in out
    assert "protocol ratio: A random fifth of every user's interactions" in out
    for protocol in ("loo", "temporal", "ratio"):
        assert cli.main(["check", folder, "--protocol", protocol]) == 0
    assert cli.main(["check", folder, "--protocol", "preset"]) == 2  # this log brings none
    assert "temporal or ratio_split" in capsys.readouterr().err


def test_wrong_input_is_one_line_and_exit_code_2(tmp_path, capsys, model_folder):
    folder = write_log(tmp_path)
    (folder / "interactions.csv").write_text("user_id,item_id,time_stamp\nu1,a,1\n")
    assert cli.main(["check", str(folder)]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("error: ") and error.count("\n") == 1
    assert "interactions.csv has no column 'timestamp'" in error and "Did you mean 'time_stamp'?" in error
    for arguments in (
        ["check", str(tmp_path / "nowhere")],
        ["recommend", str(model_folder), "--history", "item1", "-k", "0"],
        ["convert", "unisrec", str(folder / "items.csv"), str(tmp_path / "out")],
        ["push", str(model_folder), "user/name"],  # no card
    ):
        assert cli.main(arguments) == 2, arguments
        assert capsys.readouterr().err.startswith("error: ")


def test_recommend_speaks_external_ids(model_folder, capsys):
    assert cli.main(["recommend", str(model_folder), "--history", "item1, item2", "-k", str(ITEMS)]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [rank for rank, _, _ in rows] == [str(rank) for rank in range(1, ITEMS - 1)]
    assert {item for _, item, _ in rows} == {f"item{i}" for i in range(3, ITEMS + 1)}
    scores = [float(score) for _, _, score in rows]
    assert scores == sorted(scores, reverse=True)
    assert cli.main(["recommend", str(model_folder), "--history", "item1", "-k", str(ITEMS), "--keep-seen"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == ITEMS


def test_recommend_says_when_popularity_answers(model_folder, capsys):
    assert cli.main(["recommend", str(model_folder), "--history", "nothing", "-k", "3"]) == 0
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == 3 and "most popular items" in error


def test_a_model_that_recommends_nothing_is_refused(tmp_path, capsys):
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    BertModel(config).save_pretrained(tmp_path)
    assert cli.main(["recommend", str(tmp_path), "--history", "item1"]) == 2
    assert "is a model of type 'bert', which recommends no items" in capsys.readouterr().err


def test_convert_gives_a_model_folder(golden, tmp_path, capsys):
    checkpoint = golden / "unisrec_tiny_checkpoint.pth"
    if not checkpoint.is_file():
        pytest.skip(f"no {checkpoint.name} in {golden}")
    assert cli.main(["convert", "unisrec", str(checkpoint), str(tmp_path / "out")]) == 0
    assert "parameters" in capsys.readouterr().out
    assert (tmp_path / "out" / "config.json").is_file() and (tmp_path / "out" / "model.safetensors").is_file()


def test_a_command_is_needed():
    for arguments in ([], ["recomend"], ["convert", "bert4rec", "a", "b"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        assert stop.value.code == 2


def test_every_public_name_can_be_imported_and_the_version_is_the_package_s():
    for name in seqkd.__all__:
        assert getattr(seqkd, name) is not None, name
    assert set(seqkd._LATER) <= set(seqkd.__all__)
    assert not set(seqkd.__all__) & {path.stem for path in (ROOT / "src" / "seqkd").iterdir()}, "hides a file"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = seqkd.nothing
    declared = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert declared is not None and seqkd.__version__ == declared[1]


@pytest.mark.slow
def test_import_alone_lets_the_auto_classes_load_a_model(model_folder):
    """In a fresh process; and what only training needs stays out of it."""
    code = (
        "import sys, seqkd; from transformers import AutoModel; "
        f"model = AutoModel.from_pretrained({str(model_folder)!r}); "
        "print(type(model).__name__, len(model.recommend([['item1']], 3).item_ids[0])); "
        "print({'seqkd.trainer', 'seqkd.pipeline', 'seqkd.cli', 'matplotlib'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["SASRecModel 3", "set()"]


def test_recommend_wants_somebody(tmp_path, capsys):
    model = tiny_sasrec(tiny_split())
    model.save_pretrained(tmp_path / "model")
    assert cli.main(["recommend", str(tmp_path / "model")]) == 2 and "Give --history" in capsys.readouterr().err
    assert cli.main(["recommend", str(tmp_path / "model"), "--user", "u1"]) == 2
    assert "SASRecModel knows no users" in capsys.readouterr().err


def test_what_is_no_model_is_one_line_that_names_the_model_beside_it(tmp_path, model_folder, capsys, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(model_folder, run / "student")
    (run / "config.json").write_text('{"student": {"type": "mf"}}')  # as a run on a stream has it
    for name, text in {"damaged": "{", "list": "[1]", "foreign": '{"model_type": "foo"}', "empty": None}.items():
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / "config.json").write_text(text)
    (tmp_path / "foreign" / "model.safetensors").touch()
    shutil.copytree(model_folder, tmp_path / "bare", ignore=shutil.ignore_patterns("*.safetensors"))
    monkeypatch.chdir(tmp_path)
    for name, says in (
        ("run", f"Did you mean {Path('run', 'student')}?"),
        ("damaged", "its config.json is damaged"),
        ("list", "its config.json names no model_type"),
        ("foreign", "does not recognize this architecture"),
        ("empty", "it has no config.json. Give the folder"),
        ("bare", "it has no weights (model.safetensors)"),
        ("run/config.json", "is a file"),
        ("nowhere", "there is no folder 'nowhere'"),
        ("no where", "there is no folder 'no where'"),
    ):
        assert cli.main(["recommend", name, "--history", "item1"]) == 2, name
        told = capsys.readouterr().err
        assert told.startswith("error: ") and told.count("\n") == 1 and says in told, told
        assert "internet" not in told, told
    assert cli.main(["recommend", str(Path("run", "student")), "--history", "item1"]) == 0


def knowing(kind, folder, split):
    """An untrained model with a user table, and its folder."""
    model = pipeline.new_model(split, ModelConfig(kind, {"hidden_size": 4}), "model", 0)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("kind", ["mf", "fm"])
def test_recommend_says_where_it_does_not_know_what_a_user_has(kind, tmp_path, capsys):
    split = tiny_split()
    model = knowing(kind, tmp_path / "model", split)
    has = split.catalogue.decode(split.train[0]["item_ids"])
    ask = ["recommend", str(tmp_path / "model"), "--user", "u0", "-k", str(ITEMS)]
    assert cli.main(ask) == 0
    out, error = capsys.readouterr()
    assert {row.split("\t")[1] for row in out.splitlines()} == set(split.catalogue.item_ids), "what u0 has, too"
    assert error == "what u0 has is not known here, so that it may be among these: name it with --history\n"
    assert model.users.item_ids[0] == "u0"
    for more in (["--history", ",".join(has)], ["--keep-seen"]):
        assert cli.main([*ask, *more]) == 0
        out, error = capsys.readouterr()
        assert error == "" and len(out.splitlines()) == ITEMS - len(set(has)) * (more[0] == "--history")


@pytest.mark.parametrize("kind", ["lightgcn", "itemae", "multvae"])
def test_recommend_leaves_out_what_a_model_holds_of_a_user(kind, tmp_path, capsys):
    split = tiny_split()
    model = knowing(kind, tmp_path / "model", split)
    has = {*split.catalogue.decode(split.train[0]["item_ids"])}
    other = next(item for item in split.catalogue.item_ids if item not in has)
    ask = ["recommend", str(tmp_path / "model"), "--user", "u0", "-k", str(ITEMS)]
    assert cli.main(ask) == 0
    out, error = capsys.readouterr()
    told = [row.split("\t")[1] for row in out.splitlines()]
    assert told and not has & set(told)
    assert told == model.eval().recommend([sorted(has)], ITEMS, users=["u0"]).item_ids[0]
    assert error == f"the {len(has)} items of u0 in training are left out: name others with --history\n"
    assert cli.main([*ask, "--history", other]) == 0
    out, error = capsys.readouterr()
    assert error == "" and {row.split("\t")[1] for row in out.splitlines()} == set(told) - {other}
    assert cli.main([*ask, "--keep-seen"]) == 0
    out, error = capsys.readouterr()
    assert error == "" and len(out.splitlines()) == ITEMS


def test_the_commands_are_those_that_the_module_names(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    commands = re.findall(r"^    (\w+)\b", capsys.readouterr().out, re.MULTILINE)
    assert "evolve" in commands and cli.__doc__ is not None and ", ".join(commands) in cli.__doc__


def test_python_runs_it_as_a_module():
    ran = subprocess.run([sys.executable, "-m", "seqkd", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == seqkd.__version__


def test_a_folder_that_is_not_there_is_named_at_once(tmp_path, capsys):
    (tmp_path / "films").mkdir()
    assert cli.main(["recommend", str(tmp_path / "filme"), "--history", "a"]) == 2
    told = capsys.readouterr().err
    assert "there is no filme in" in told and "films" in told


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """The settings of a small run, and a log in two halves; `whole.csv` is both."""
    folder = tmp_path_factory.mktemp("logs")
    settings = dataclasses.asdict(config()) | {"blocks": {"split": "random", "max_length": 20}}
    (folder / "run.yaml").write_text(yaml.safe_dump({"run": settings}), encoding="utf-8")
    table = market()["interactions"].to_pandas().sort_values("timestamp")[["user_id", "item_id", "timestamp"]]
    for name, part in {"one": table[:600], "two": table[600:], "whole": table}.items():
        (folder / name).mkdir()
        part.to_csv(folder / name / "interactions.csv", index=False)
    return folder


def evolve(*arguments):
    return cli.main(["evolve", *map(str, arguments)])


def test_evolve_begins_a_run_and_goes_on_with_new_data(logs, tmp_path, capsys):
    run = tmp_path / "run"
    assert evolve(run, "--config", logs / "run.yaml", "--data", logs / "one") == 0
    assert [block.number for block in Evolution(run).blocks] == [0]
    assert evolve(run, "--data", logs / "two") == 0
    out, error = capsys.readouterr()
    assert "# mf taught by lightgcn" in out and f"The student to serve is {run / 'student'}." in error
    first, second = Evolution(run).blocks
    assert f"block 1: {len(second.users)} users, {len(second.catalogue)} items" in error
    assert second.known_users == len(first.users) and Evolution(run).student.users == second.users
    assert (run / "report.md").is_file()

    user = second.users.item_ids[-1]
    assert cli.main(["recommend", str(run / "student"), "--user", user, "-k", "3"]) == 0
    told = capsys.readouterr().out.splitlines()
    items = [row.split("\t")[1] for row in told]
    assert items == Evolution(run).student.recommend([[]], 3, users=[user]).item_ids[0]
    assert cli.main(["recommend", str(run / "student"), "--user", "stranger"]) == 2
    assert "'stranger' is unknown" in capsys.readouterr().err

    assert evolve(run, "--data", logs / "two") == 2 and "was this log fed already?" in capsys.readouterr().err
    assert evolve(run, "--config", logs / "run.yaml") == 0, "the settings it began with may be named again"
    (tmp_path / "other.yaml").write_text("run: {seed: 5}", encoding="utf-8")
    assert evolve(run, "--config", tmp_path / "other.yaml") == 2
    assert "was begun with another configuration" in capsys.readouterr().err
    assert len(Evolution(run).blocks) == 2


def test_evolve_cuts_the_log_that_a_run_begins_with_and_resumes_it(logs, tmp_path, capsys):
    run, arguments = tmp_path / "run", ["--data", logs / "whole", "--cut", 1]
    assert evolve(run, "--config", logs / "run.yaml", *arguments) == 0
    weights = (run / "1" / "student" / "model.safetensors").read_bytes()
    shutil.rmtree(run / "1")  # as if it had stopped there
    assert evolve(run, *arguments) == 0
    assert (run / "1" / "student" / "model.safetensors").read_bytes() == weights
    assert "block 0" not in capsys.readouterr().err.split("to serve")[1], "that is learned"
    for stage in ("generated", "measured"):
        shutil.rmtree(run / "1" / stage)
    assert evolve(run) == 0 and (run / "1" / "measured").exists(), "the block is kept: no data has to be given again"
    assert "block 1 was begun: going on with it" in capsys.readouterr().err
    assert evolve(run, "--data", logs / "whole", "--cut", 2) == 2
    assert "has learned another block 1 than" in capsys.readouterr().err


@pytest.fixture
def learned(monkeypatch):
    """The fingerprints of the blocks of a run, which are kept and not learned."""

    def step(run, block):
        run.folder.mkdir(exist_ok=True)
        run.config.save(run.folder)
        block.save(run.folder / str(block.number) / "block")
        (run.folder / str(block.number) / "measured").mkdir()

    monkeypatch.setattr(Evolution, "step", step)
    monkeypatch.setattr(Evolution, "report", lambda run: "")
    return lambda folder: [block.fingerprint for block in Evolution(folder).blocks]


def cut(folder, **how):
    settings = {"split": "random", "max_length": 20, **how}
    return [block.fingerprint for block in cut_stream(load_interactions(folder), **settings)]


def test_evolve_begins_with_the_data_and_the_cut_that_the_yaml_names(logs, tmp_path, capsys, learned):
    begins = {"data": str(logs / "one"), "cut": {"blocks": 2, "base": 0.6}}
    settings = yaml.safe_load((logs / "run.yaml").read_text()) | begins
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(settings))
    given = ["--config", tmp_path / "shop.yaml"]
    assert evolve(tmp_path / "a", *given) == 0
    assert learned(tmp_path / "a") == cut(logs / "one", blocks=2, base=0.6)
    for name, more, count in (("b", [], 3), ("c", ["--cut", 1], 2), ("d", ["--base", 0.5], 6), ("e", ["--cut", 0], 1)):
        assert evolve(tmp_path / name, *given, "--data", logs / "whole", *more) == 0
        assert len(learned(tmp_path / name)) == count, more
    assert evolve(tmp_path / "f", "--config", logs / "run.yaml", "--data", logs / "whole") == 0
    assert len(learned(tmp_path / "f")) == 1, "the default of `cut` is not what the YAML names"

    capsys.readouterr()
    assert evolve(tmp_path / "a", *given) == 0 and len(learned(tmp_path / "a")) == 3, "it has begun"
    assert not capsys.readouterr().err.count("the cut of")
    assert evolve(tmp_path / "a", *given, "--data", logs / "two") == 0 and len(learned(tmp_path / "a")) == 4
    assert f"{logs / 'two'} is one block. To go on with the log that was cut, give --cut" in capsys.readouterr().err
    for k in (2, 3):
        shutil.rmtree(tmp_path / "a" / str(k))
    assert evolve(tmp_path / "a", *given) == 0, "the same command goes on where it was killed"
    assert learned(tmp_path / "a") == cut(logs / "one", blocks=2, base=0.6)
    (tmp_path / "whole.yaml").write_text(yaml.safe_dump({**settings, "cut": {}}))
    for _ in range(2):
        assert evolve(tmp_path / "g", "--config", tmp_path / "whole.yaml") == 0 and len(learned(tmp_path / "g")) == 1


def test_evolve_goes_as_far_as_the_yaml_says(logs, tmp_path, capsys, learned):
    begins = {"data": str(logs / "one"), "cut": {"blocks": 3}, "blocks": 2}
    (tmp_path / "some.yaml").write_text(yaml.safe_dump(yaml.safe_load((logs / "run.yaml").read_text()) | begins))
    assert evolve(tmp_path / "run", "--config", tmp_path / "some.yaml") == 0
    assert learned(tmp_path / "run") == cut(logs / "one", blocks=3)[:2]
    assert "says blocks: 2, so the stream ends here for now" in capsys.readouterr().err
    assert evolve(tmp_path / "all", "--config", tmp_path / "some.yaml", "--data", logs / "one", "--cut", 3) == 0
    assert len(learned(tmp_path / "all")) == 4, "it is about the data that the YAML names"


def test_evolve_begins_with_the_synthetic_log_where_the_yaml_names_it(logs, tmp_path, monkeypatch, learned):
    monkeypatch.setattr(experiment, "synthetic_market", lambda domains: {1: market()}[domains])
    (tmp_path / "demo.yaml").write_text("data: synthetic\ncut: {blocks: 3}\n" + (logs / "run.yaml").read_text())
    assert evolve(tmp_path / "run", "--config", tmp_path / "demo.yaml") == 0
    assert len(learned(tmp_path / "run")) == 4


def test_evolve_cuts_the_first_log_alone(logs, tmp_path, capsys, learned):
    run, arguments = tmp_path / "run", ["--cut", 2, "--data", logs / "one", logs / "two"]
    assert evolve(run, "--config", logs / "run.yaml", *arguments) == 0
    told = learned(run)
    assert told[:3] == cut(logs / "one", blocks=2) and len(told) == 4
    for number in (2, 3):
        shutil.rmtree(run / str(number))  # as if it had stopped there
    assert evolve(run, *arguments) == 0 and learned(run) == told
    assert evolve(run, "--cut", 2, "--data", logs / "one") == 0 and learned(run) == told, "all of it is learned"


def test_evolve_cuts_by_period_and_share(logs, tmp_path, capsys, learned):
    (tmp_path / "days").mkdir()
    days = market()["interactions"].to_pandas()[["user_id", "item_id", "timestamp"]]
    days["timestamp"] = 1_600_000_000 + days["timestamp"] * 600  # six days and some hours
    days.to_csv(tmp_path / "days" / "interactions.csv", index=False)
    begin = ["--config", logs / "run.yaml", "--data", tmp_path / "days"]
    assert evolve(tmp_path / "a", *begin, "--period", "day", "--base", 0.6) == 0
    assert learned(tmp_path / "a") == cut(tmp_path / "days", period="day", base=0.6)
    assert evolve(tmp_path / "b", *begin, "--period", "day", "--cut", 2) == 2
    assert "both given. Cut by one of the two" in capsys.readouterr().err


def test_evolve_tells_of_what_was_fed_before(logs, tmp_path, capsys, monkeypatch, learned):
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's, beside which no other would be set up
    assert evolve(tmp_path, "--config", logs / "run.yaml", "--data", logs / "one", logs / "whole") == 0
    assert "600 of 900 interactions of the new log were fed before" in capsys.readouterr().err
    assert len(Evolution(tmp_path).blocks[1].log) <= 300


def test_evolve_says_what_is_wrong(logs, tmp_path, capsys):
    assert evolve(tmp_path / "run", "--data", logs / "one") == 2
    assert "Give a configuration" in capsys.readouterr().err
    (tmp_path / "wrong.yaml").write_text("run: {metric: recall@7}", encoding="utf-8")
    assert evolve(tmp_path / "run", "--config", tmp_path / "wrong.yaml") == 2
    assert "recall@7" in capsys.readouterr().err
    (tmp_path / "wrong.yaml").write_text("run: {studant: {type: mf}}", encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        evolve(tmp_path / "run", "--config", tmp_path / "wrong.yaml")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: there is no setting 'studant' in run. Did you mean 'student'?\n"
    assert not (tmp_path / "run").exists()

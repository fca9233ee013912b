"""examples/pretrain_teacher.py from the command line to a teacher that others load, resume and push."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.utils import filter_repo_objects
from transformers import AutoModel

from seqkd import cli, pipeline
from seqkd.cards.model_card import write_card
from seqkd.catalogue import Catalogue
from seqkd.config import TeacherConfig, read_experiment
from seqkd.data.interactions import INTERACTIONS, ITEMS, by_domain
from seqkd.data.market import synthetic_market
from seqkd.errors import CheckpointError, ConfigError
from seqkd.evaluation.results import load_results
from seqkd.files import hub
from seqkd.files.checkpoints import checkpoints
from seqkd.models.recformer import RecformerForPretraining, RecformerModel
from seqkd.models.recformer.configuration_recformer import RecformerConfig
from seqkd.models.unisrec import UniSRecForPretraining
from seqkd.pipeline.teachers import load_pretrained
from tests.models.recformer.tiny_recformer import SIZES, tokens_of
from tests.tiny import tiny_sasrec, tiny_split

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "examples" / "pretrain_teacher.py"
TINY = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8, "num_experts": 2}
PRETRAINING = {
    "num_train_epochs": 2, "learning_rate": 0.01, "save_strategy": "epoch", "save_total_limit": 5,
    "load_best_model_at_end": False,
}  # fmt: skip
TRAINING = {"per_device_train_batch_size": 32, "use_cpu": True, "disable_tqdm": True, "metric_ks": [10, 50]}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list[str]:
    """Two folders with tables and, beside them, the items' text vectors: no text model is needed."""
    root, draw, folders = tmp_path_factory.mktemp("data"), np.random.default_rng(0), []
    for domain, market in by_domain(synthetic_market(users=60, items=40, mean_length=6, max_length=10)).items():
        folder = root / domain
        folder.mkdir()
        for table, columns in ((INTERACTIONS, ["user_id", "item_id", "timestamp"]), (ITEMS, ["item_id", "title"])):
            with open(folder / f"{table}.csv", "w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, columns, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(market[table].to_list())
        np.save(folder / "text_features.npy", draw.normal(size=(len(market[ITEMS]), 6)).astype(np.float32))
        folders.append(str(folder))
    return folders


@pytest.fixture(scope="module")
def config(data, tmp_path_factory) -> Path:
    teachers = {"words": {"type": "unisrec", "model": TINY, "pretraining": PRETRAINING}}
    path = tmp_path_factory.mktemp("config") / "teacher.yaml"
    path.write_text(json.dumps({"data": data, "teachers": teachers, "training": TRAINING}))
    return path


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("pretrain_teacher", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(example, config, monkeypatch):
    def runner(output, *arguments):
        command = ["pretrain_teacher.py", "--config", str(config), "--output_dir", str(output), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        example.main()

    return runner


@pytest.fixture(scope="module")
def output(example, config, tmp_path_factory) -> Path:
    """One finished run."""
    folder = tmp_path_factory.mktemp("output")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pretrain_teacher.py", "--config", str(config), "--output_dir", str(folder)])
        example.main()
    return folder


@pytest.fixture
def pushed(monkeypatch) -> list:
    """The Hub, as far as it is needed."""
    calls = []

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, **kwargs):
        files = [path.relative_to(folder_path).as_posix() for path in Path(folder_path).rglob("*") if path.is_file()]
        calls.append((repo_id, sorted(filter_repo_objects(files, allow_patterns=allow_patterns))))
        return SimpleNamespace(commit_url="https://hub/commit/1")

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **_: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(hub, "is_offline_mode", lambda: False)
    return calls


def started_from(folder, config, **settings):
    experiment = read_experiment(["--config", str(config)])
    teacher = TeacherConfig(**{"type": "unisrec", "pretrained": str(folder), **settings})
    return replace(experiment, teachers={"words": teacher})


def test_a_run_leaves_weights_ids_card_and_zero_shot_results(output):
    teacher = load_pretrained(str(output / "words"))
    assert type(teacher) is UniSRecForPretraining and teacher.config.num_items == 80
    assert teacher.item_ids[0] == "books/books-00000" and teacher.item_ids[40] == "films/films-00000"
    results = load_results(output / "results.json")
    assert [(one.domain, one.split) for one in results] == [
        (domain, part) for domain in ("books", "films") for part in ("valid", "test")
    ]
    assert {one.history for one in results} == {"masked"} and {one.role for one in results} == {"teacher"}
    card = (output / "words" / "README.md").read_text()
    for words in (
        "A pre-trained teacher (UniSRecForPretraining",
        "* books: 60 users, 40 items, ",
        "* loss: sequence-item and sequence-sequence contrast",
        "* text: vectors that the data brings",
        "zero-shot",
        "arxiv.org/abs/2206.05941",
        "model.for_domain(catalogue, features)",
    ):
        assert words in card, words
    assert "distilled from" not in card and "small sequential recommender" not in card


def test_the_results_are_those_of_the_saved_teacher_on_the_domain_alone(output, config):
    """Loaded again and asked anew: the same numbers, over 40 items and not 80."""
    experiment = started_from(output / "words", config, stage="zero_shot")
    domain = pipeline.prepare(experiment)["films"]
    model = pipeline.new_teacher(experiment, domain, "words", 0)
    again = pipeline.measure(
        model, "words", "teacher", experiment, domain, 0, parts=("valid", "test"), histories=("masked",)
    )
    written = [one for one in load_results(output / "results.json") if one.domain == "films"]
    assert model.config.num_items == 40
    for new, old in zip(again, written, strict=True):
        assert new.metrics == pytest.approx(old.metrics)


def test_resuming_equals_a_run_without_interruption(run, output, tmp_path):
    """Of a finished run only the checkpoint after the first epoch is left, and half of the one after the second."""
    again = tmp_path / "again"
    shutil.copytree(output / "runs", again / "runs")
    first, second = checkpoints(again / "runs" / "words-pretraining")
    (second / "seqkd_manifest.json").unlink()
    run(again, "--resume")
    one, two = (load_pretrained(str(folder / "words")).state_dict() for folder in (output, again))
    assert all(torch.equal(one[name], two[name]) for name in one)
    begun = AutoModel.from_pretrained(first).state_dict()
    assert not torch.equal(begun["position_embedding.weight"], two["position_embedding.weight"])  # it did go on
    results = [load_results(folder / "results.json") for folder in (output, again)]
    assert [one.metrics for one in results[0]] == [one.metrics for one in results[1]]


def test_old_and_new_checkpoints_never_mix(run, output, tmp_path):
    with pytest.raises(CheckpointError, match=r"nothing to resume in .*Start without --resume"):
        run(tmp_path, "--resume")
    with pytest.raises(CheckpointError, match=r"holds checkpoints of words from an earlier run\. Go on with --resume"):
        run(output)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pretraining": None}, "no teacher is to be pre-trained"),
        ({"pretrained": "folder"}, "no teacher is to be pre-trained"),
        ({"type": "sasrec", "model": {}}, "a sasrec has no pre-training; .*'unisrec'"),
        ({"pretraining": {"lerning_rate": 1}}, "'lerning_rate'. Did you mean 'learning_rate'"),
        ({"model": {"num_expert": 1}}, "teachers.words.model: .*'num_expert'. Did you mean 'num_experts'"),
    ],
)
def test_what_cannot_be_pretrained_is_refused(run, tmp_path, settings, message):
    teacher = {"type": "unisrec", "model": TINY, "pretraining": PRETRAINING, **settings}
    with pytest.raises(ConfigError, match=message):
        run(tmp_path, "--teachers", json.dumps({"words": teacher}))


def test_a_pretrained_folder_serves_zero_shot_and_is_finetuned(output, config, tmp_path):
    teacher = load_pretrained(str(output / "words"))
    as_it_is = started_from(output / "words", config, stage="zero_shot", model={"use_item_embedding": True})
    domain = pipeline.prepare(as_it_is)["books"]
    (zero_shot,) = pipeline.train_teacher(as_it_is, domain, "words", 0)
    assert zero_shot.item_embedding is None  # nobody has learned any
    for name, tensor in teacher.adaptor.state_dict().items():
        assert torch.equal(zero_shot.adaptor.state_dict()[name], tensor)

    tuned = started_from(output / "words", config, model={"use_item_embedding": True}, training={"num_train_epochs": 1})
    tuned = replace(tuned, output_dir=str(tmp_path))
    (finetuned,) = pipeline.train_teacher(tuned, domain, "words", 0)
    assert finetuned.item_embedding is not None
    assert not torch.equal(finetuned.adaptor.weight, zero_shot.adaptor.weight)


@pytest.mark.parametrize("kind", ["unim2rec", "recformer", "sasrec"])
def test_a_checkpoint_of_another_kind_is_refused(output, config, kind):
    experiment = started_from(output / "words", config, type=kind)
    domain = pipeline.load_domains(experiment)["books"]
    with pytest.raises(ConfigError, match=f"holds a UniSRecForPretraining, but the type is '{kind}'"):
        pipeline.new_teacher(experiment, domain, "words", 0)


def test_a_students_checkpoint_is_refused_as_a_teacher_that_reads(config, tmp_path):
    tiny_sasrec(tiny_split()).save_pretrained(tmp_path)
    experiment = started_from(tmp_path, config)
    domain = pipeline.load_domains(experiment)["books"]
    with pytest.raises(ConfigError, match="holds a SASRecModel, but the type is 'unisrec'"):
        pipeline.new_teacher(experiment, domain, "words", 0)


def test_a_teacher_is_pushed_by_method_and_command(output, pushed, capsys):
    load_pretrained(str(output / "words")).push_to_hub("me/words")
    assert cli.main(["push", str(output / "words"), "me/words"]) == 0
    assert "https://hub/commit/1" in capsys.readouterr().out
    (repository, files), second = pushed
    assert second == (repository, files) and repository == "me/words"
    results = [name for name in files if name.startswith(".eval_results/")]
    assert files == [*results, "README.md", "config.json", "item_ids.json", "model.safetensors"] and len(results) == 4


def test_a_pretrained_recformer_loads_with_and_without_its_language_model_head(pushed, tmp_path):
    teacher = RecformerForPretraining(RecformerConfig(num_items=3, **SIZES)).eval()
    teacher.set_item_features(tokens_of(3))
    teacher.set_catalogue(Catalogue(["a/1", "a/2", "b/1"]))
    teacher.save_pretrained(tmp_path)
    write_card(tmp_path, model=teacher, name="recformer", seed=0, pretrained_on=["a: 9 users", "b: 8 users"])
    whole = load_pretrained(str(tmp_path))
    assert type(whole) is RecformerForPretraining
    assert torch.equal(whole.lm_head.decoder.weight, teacher.lm_head.decoder.weight)
    assert torch.equal(whole.item_words, teacher.item_words)
    served = AutoModel.from_pretrained(tmp_path)
    assert type(served) is RecformerModel
    assert torch.equal(served.item_embeddings(), teacher.item_embeddings())
    whole.push_to_hub("me/recformer")
    assert pushed[0][1] == ["README.md", "config.json", "item_ids.json", "model.safetensors"]

    served.save_pretrained(tmp_path / "served")
    with pytest.raises(CheckpointError, match=r"missing keys .*lm_head"):
        RecformerForPretraining.from_pretrained(tmp_path / "served")


@pytest.mark.slow
def test_from_the_command_line(config, tmp_path):
    source = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(SCRIPT), "--config", str(config), "--output_dir", str(tmp_path)]

    def call(*more):
        return subprocess.run([*command, *more], env=environment, capture_output=True, text=True, timeout=240)

    done = call()
    assert done.returncode == 0, done.stderr[-3000:]
    for words in ("pre-training teacher words on books, films", "test NDCG@10", "| films ", "pretrained: "):
        assert words in done.stdout, words
    again = call()
    assert again.returncode == 1 and again.stderr.strip().splitlines()[-1].startswith(f"error: {tmp_path} holds")
    asked = call("--help")
    assert "--resume" in asked.stdout and "--teachers" in asked.stdout
    typo = call("--resum")
    assert typo.returncode == 2 and "resum" in typo.stderr

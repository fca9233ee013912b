"""The shipped settings: every file is read, and nothing in it is misspelt or out of range."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqkd import pipeline
from seqkd.config import read_experiment
from seqkd.continual.configuration import STAGES
from seqkd.continual.experiment import StreamExperiment
from seqkd.parsing import parse
from seqkd.pipeline import KINDS
from seqkd.settings import make
from seqkd.training_args import DistillationArguments

ROOT = Path(__file__).resolve().parents[1]
STREAMS = sorted((ROOT / "configs" / "ccd").glob("*.yaml"))
CONFIGS = sorted({*(ROOT / "configs").rglob("*.yaml")} - {*STREAMS})
TEACHERS = ("unisrec", "recformer", "causal_recformer", "unim2rec")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_shipped_config_is_read_and_checked_without_touching_data(path, monkeypatch):
    monkeypatch.setattr(pipeline.domains, "load_markets", lambda *args, **kwargs: pytest.fail("data is read"))
    experiment = read_experiment(["--config", str(path), "--training.use_cpu", "true"])
    pipeline.check(experiment)
    assert not Path(experiment.output_dir).is_absolute()


@pytest.mark.parametrize("name", [*TEACHERS, "recformer_base"])
def test_each_teacher_has_a_config_that_pretrains_it_and_can_be_resumed(name):
    experiment = read_experiment(["--config", str(ROOT / "configs" / "teachers" / f"{name}.yaml")])
    (teacher,) = experiment.teachers.values()
    assert teacher.type == name.removesuffix("_base") and experiment.data == "synthetic"
    assert teacher.pretraining is not None and teacher.pretraining["save_strategy"] == "epoch"


def test_the_full_size_recformer_is_the_papers():
    """arXiv:2305.13731, section 3.1.3, and the authors' defaults."""
    experiment = read_experiment(["--config", str(ROOT / "configs" / "teachers" / "recformer_base.yaml")])
    teacher = experiment.teachers["recformer"]
    batch = teacher.pretraining["per_device_train_batch_size"], teacher.pretraining["gradient_accumulation_steps"]
    assert batch == (16, 8)
    assert (teacher.pretraining["num_train_epochs"], teacher.pretraining["learning_rate"]) == (32, 5e-5)
    assert teacher.model["max_token_num"] == 1024 and "num_hidden_layers" not in teacher.model
    assert experiment.text.encoder == "allenai/longformer-base-4096"


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_a_shipped_stream_is_read_and_checked_without_touching_data(path):
    experiment = parse(StreamExperiment, "", ["--config", str(path)])
    assert not Path(experiment.output_dir).is_absolute() and not Path(experiment.data).is_absolute()
    run = experiment.run
    for stage in STAGES:
        make(DistillationArguments, getattr(run, stage).training, f"{stage}.training", output_dir="outputs")
        assert set(getattr(run, stage).weights) == set(getattr(run, stage).methods), "a weight for each"
    for where, model in {"student": run.student, **run.teachers}.items():
        made = make(KINDS[model.type].config, model.model, where)
        if run.blocks.queries == "positions":
            assert model.type in ("sasrec", "unisrec") and made.max_position_embeddings == run.blocks.max_length
    assert experiment.baselines and "use_cpu" in run.base.training

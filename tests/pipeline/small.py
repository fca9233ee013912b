"""Models and settings small enough for a test of the whole way."""

from __future__ import annotations

from dataclasses import replace

from seqkd import pipeline
from seqkd.config import ModelConfig, TeacherConfig

NARROW = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8}
WIDE = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16}
TRAINING = {
    "num_train_epochs": 1, "per_device_train_batch_size": 32, "learning_rate": 1e-2, "use_cpu": True,
    "disable_tqdm": True, "metric_ks": (10,),
}  # fmt: skip


def untrained(books, *seeds):
    return [pipeline.new_model(books.split, ModelConfig(model=WIDE), "x", seed) for seed in seeds]


def with_teacher(experiment, **settings):
    return replace(experiment, teachers={"wide": TeacherConfig(model=WIDE, **settings)})

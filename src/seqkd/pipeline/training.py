"""One model trained under an experiment's settings, and those settings checked before anything runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import EarlyStoppingCallback, TrainerCallback, set_seed

from ..batches.collators import SequenceDataset
from ..batches.edges import edges_of
from ..config import Experiment, ModelConfig
from ..data.split import Split
from ..distiller import Distiller
from ..errors import ConfigError
from ..knowledge import Knowledge
from ..method import Method
from ..recommenders.edge_recommender import EdgeRecommender
from ..recommenders.recommender import RecommenderModel, count_items
from ..recommenders.user_configuration import UserRecommenderConfig
from ..recommenders.user_recommender import UserRecommender
from ..settings import make
from ..trainer import DistillationTrainer
from ..training_args import DistillationArguments
from .domains import Domain
from .kinds import KINDS


def new_model(split: Split, config: ModelConfig, where: str, seed: int) -> RecommenderModel:
    """An untrained model that reads no content: it knows the split's catalogue and, if its kind does, users."""
    kind, sizes = KINDS[config.type], {"num_items": len(split.catalogue)}
    if issubclass(kind.config, UserRecommenderConfig):
        sizes["num_users"] = len(split.users)
    set_seed(seed)
    model = kind.model(make(kind.config, config.model, where, **sizes))
    model.set_catalogue(split.catalogue, count_items(split.train, len(split.catalogue)))
    if isinstance(model, UserRecommender):
        model.set_users(split.users)
    if isinstance(model, EdgeRecommender):  # of no other part: a target is no neighbour
        model.set_edges(edges_of(SequenceDataset(split.train, len(split.catalogue), split.users)))
    return model


def train(
    model: RecommenderModel,
    domain: Domain,
    arguments: DistillationArguments,
    *,
    patience: int = 0,
    callbacks: Sequence[TrainerCallback] = (),
    method: Method | None = None,
    method_weight: float = 1.0,
    label_weight: float = 1.0,
    knowledge: Mapping[str, Knowledge] | None = None,
    resume: bool = False,
) -> DistillationTrainer:
    """Train a model alone or, with a method, from knowledge; the trainer's student is the best one on valid."""
    for teacher in (knowledge or {}).values():
        teacher.check(split=domain.split, part="train")
    methods = {} if method is None else {"kd": method}
    distiller = Distiller(model, methods, dict.fromkeys(methods, method_weight), knowledge, label_weight)
    all_callbacks = [*callbacks, *([EarlyStoppingCallback(patience)] if patience else [])]
    trainer = DistillationTrainer(distiller, arguments, domain.part("train"), domain.part("valid"), all_callbacks)
    trainer.train(resume_from_checkpoint=resume or None)
    return trainer


def arguments_for(experiment: Experiment, name: str, seed: int, *overrides: Mapping[str, Any]) -> DistillationArguments:
    """The experiment's training arguments with what a model overrides, writing to a folder of its own."""
    merged: dict[str, Any] = {
        "eval_strategy": "epoch",
        "save_strategy": "best",
        "load_best_model_at_end": True,
        "save_total_limit": 1,
        "logging_strategy": "epoch",
        **experiment.training,
    }
    for override in overrides:
        merged |= override
    if merged.get("resume_from_checkpoint"):
        raise ConfigError(
            "an experiment trains several models and does not resume. Resume one of them in Python: "
            "DistillationTrainer(...).train(resume_from_checkpoint=True)."
        )
    # YAML reads an unquoted `no` as false
    merged = {key: "no" if key.endswith("_strategy") and value is False else value for key, value in merged.items()}
    folder = os.path.join(experiment.output_dir, "runs", name)
    return make(DistillationArguments, merged, "training", output_dir=folder, seed=seed)

"""The student: alone, and taught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import torch
from torch import nn

from ..config import Experiment
from ..knowledge import Knowledge
from ..knowledge.export import export
from ..knowledge.warm_start import principal_items
from ..method import Method
from ..recommenders.recommender import RecommenderModel
from ..teaching.teacher_weights import teacher_weights_of
from .domains import Domain
from .training import arguments_for, new_model, train


class Distilled(NamedTuple):
    """A taught student, and how its method weighed the teachers (see `teacher_weights_of`)."""

    student: RecommenderModel
    teacher_weights: Mapping[str, Mapping[str, float]]


def train_alone(experiment: Experiment, domain: Domain, seed: int) -> RecommenderModel:
    """The student without any teacher."""
    student = new_model(domain.split, experiment.student, "student.model", seed)
    arguments = arguments_for(experiment, f"{domain.name}-alone-{seed}", seed, experiment.student.training)
    return train(student, domain, arguments, patience=experiment.patience).model.student


def distil(
    experiment: Experiment,
    domain: Domain,
    seed: int,
    method: Method,
    knowledge: Mapping[str, Knowledge],
    teachers: Mapping[str, Sequence[RecommenderModel]],
) -> Distilled:
    """The same student, taught by the method from the teachers' knowledge."""
    student_config = replace(experiment.student, model={**experiment.student.model, **experiment.distilled_model})
    student = new_model(domain.split, student_config, "student.model", seed)
    if experiment.warm_start:
        start_from_teachers(student, teachers, domain)
    overrides = experiment.student.training, experiment.distillation
    arguments = arguments_for(experiment, f"{domain.name}-distilled-{seed}", seed, *overrides)
    trainer = train(
        student,
        domain,
        arguments,
        patience=experiment.patience,
        method=method,
        method_weight=experiment.method_weight,
        label_weight=experiment.label_weight,
        knowledge=knowledge,
    )
    return Distilled(trainer.model.student, teacher_weights_of(trainer.state.log_history))


def start_from_teachers(
    student: RecommenderModel, teachers: Mapping[str, Sequence[RecommenderModel]], domain: Domain
) -> None:
    """Give a student the principal components of its teachers' item matrices as item table (first members only)."""
    split, table = domain.split, cast(nn.Embedding, student.get_input_embeddings())
    told = {
        name: export(members[0], split.train, split=split, part="train", tables=("item_embeddings",))
        for name, members in teachers.items()
    }
    with torch.no_grad():
        table.weight.copy_(principal_items(told, table.weight.shape[1]))

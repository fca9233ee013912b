"""Teachers: how one is pre-trained on all domains, and fitted to one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from transformers import AutoModel, PreTrainedConfig, TrainerCallback, set_seed

from ..config import Experiment, TeacherConfig
from ..errors import CheckpointError, ConfigError
from ..files.model_folder import config_of
from ..models.recformer import (
    CausalRecformerModel,
    EncodeItems,
    RecformerConfig,
    RecformerModel,
    finetune,
)
from ..models.unim2rec import UniM2RecForPretraining, UniM2RecModel
from ..models.unisrec import UniSRecForPretraining, UniSRecModel
from ..recommenders.recommender import RecommenderModel, count_items
from ..settings import make
from ..training_args import DistillationArguments
from .domains import Domain, joint, text_model
from .kinds import KINDS, Kind, Reading, ReadingSettings, processor_for, reading_of
from .training import arguments_for, new_model, train

ALONE = {"use_item_embedding": False, "freeze_encoder": False}  # as shared by all domains: no ids, nothing frozen


def build(
    kind: Kind, cls: type[Any], domain: Domain, content: Any, config: TeacherConfig, reading: Reading, where: str
):
    """An untrained model of `cls` that knows the domain's items."""
    fixed: dict[str, Any] = {"num_items": domain.num_items}
    if cls in (UniSRecModel, UniSRecForPretraining):
        fixed["plm_size"] = content.shape[1]
    if cls in (UniM2RecModel, UniM2RecForPretraining):
        fixed["modalities"] = list(content)
        fixed["modality_sizes"] = {name: vectors.shape[1] for name, vectors in content.items()}
    settings = {name: value for name, value in config.model.items() if name not in fixed}
    if issubclass(kind.config, RecformerConfig):  # a language model: it starts from one
        model = cls.from_text_encoder(text_model(reading.text), **settings, **fixed)
    else:
        model = cls(make(kind.config, settings, where, **fixed))
    model.set_item_features(content)
    model.set_catalogue(domain.split.catalogue, count_items(domain.split.train, domain.num_items))
    return model


def pretrain_teacher(
    experiment: Experiment, domains: Mapping[str, Domain], name: str, *, resume: bool = False
) -> RecommenderModel:
    """A teacher pre-trained on all domains at once, in batches that mix them.

    Args:
        resume: go on from the newest complete checkpoint of the same run.

    Raises:
        ConfigError: the kind of teacher has no pre-training.
    """
    config = experiment.teachers[name]
    kind, where = KINDS[config.type], f"teachers.{name}"
    if kind.pretraining is None or kind.content is None:
        able = [other for other, one in KINDS.items() if one.pretraining is not None]
        raise ConfigError(f"{where}: a {config.type} has no pre-training; {able} have. Leave `pretraining` out.")
    everything, reading = joint(domains), reading_of(experiment, config, where)
    content = kind.content(everything, reading, config.model)
    shared = replace(config, model=as_shared(config.model))
    set_seed(0)
    model = build(kind, kind.pretraining, everything, content, shared, reading, f"{where}.model")
    arguments = arguments_for(experiment, checkpoint_folder(experiment, name).name, 0, config.pretraining or {})
    train(model, everything, arguments, callbacks=callbacks_of(model), resume=resume)
    return model


def as_shared(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration fields of a model that no domain has made its own yet."""
    return {name: ALONE.get(name, value) for name, value in settings.items()}


def checkpoint_folder(experiment: Experiment, name: str) -> Path:
    """Where the pre-training of a teacher keeps its checkpoints."""
    return Path(experiment.output_dir, "runs", f"{name}-pretraining")


def callbacks_of(model: RecommenderModel) -> list[TrainerCallback]:
    """What has to happen during training beside it: a Recformer encodes its items again."""
    return [EncodeItems("evaluation")] if isinstance(model, RecformerModel) else []


def load_pretrained(name: str, where: str = "pretrained") -> RecommenderModel:
    """A teacher from a folder or the Hub, as the class that wrote it.

    Args:
        where: the setting that names it.

    Raises:
        ConfigError: there is no such model. CheckpointError: its weights are incomplete or damaged.
    """
    architecture = (check_pretrained(name, where).architectures or [""])[0]
    for kind in KINDS.values():
        if kind.pretraining is not None and kind.pretraining.__name__ == architecture:
            return kind.pretraining.from_pretrained(name)
    return AutoModel.from_pretrained(name)


def check_pretrained(name: str, where: str) -> PreTrainedConfig:
    """The configuration of a model to start from; arguments and errors as of `load_pretrained`."""
    try:
        return config_of(name)
    except CheckpointError as error:
        raise ConfigError(f"{where}: {error} To begin from scratch, leave it out.") from error


def new_teacher(
    experiment: Experiment, domain: Domain, name: str, seed: int, pretrained: RecommenderModel | None = None
) -> RecommenderModel:
    """A teacher of an experiment for one domain: from pre-trained weights where there are some, else from scratch."""
    return teacher_for(domain, experiment.teachers[name], experiment, f"teachers.{name}", seed, pretrained)


def teacher_for(
    domain: Domain,
    config: TeacherConfig,
    settings: ReadingSettings,
    where: str,
    seed: int,
    pretrained: RecommenderModel | None = None,
) -> RecommenderModel:
    """As `new_teacher`, of one teacher's configuration; `settings` say how items are read.

    Raises:
        ConfigError: there is no such pre-trained model, or it is of another type.
    """
    kind = KINDS[config.type]
    if config.pretrained is not None:
        pretrained = load_pretrained(config.pretrained, f"{where}.pretrained")
        if pretrained.config.model_type != kind.config.model_type:  # a subclass would do for isinstance
            raise ConfigError(
                f"{where}.pretrained: {config.pretrained} holds a {type(pretrained).__name__}, but the type is "
                f"{config.type!r}. Set type to the kind that was saved, or name another checkpoint."
            )
    if kind.content is None:
        return pretrained if pretrained is not None else new_model(domain.split, config, f"{where}.model", seed)
    set_seed(seed)
    reading = reading_of(settings, config, where)
    content = kind.content(domain, reading, config.model)
    if pretrained is None:
        return build(kind, kind.model, domain, content, config, reading, f"{where}.model")
    if isinstance(pretrained, RecformerModel):
        processor_for(reading, config.model).check(pretrained.config)
    counts = count_items(domain.split.train, domain.num_items)
    known = vars(pretrained.config)
    wanted = as_shared(config.model) if config.stage == "zero_shot" else config.model
    changes = {key: value for key, value in wanted.items() if known.get(key) != value}
    return cast(Any, pretrained).for_domain(domain.split.catalogue, content, counts, **changes)


def train_teacher(
    experiment: Experiment, domain: Domain, name: str, seed: int, pretrained: RecommenderModel | None = None
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
        model = new_teacher(experiment, domain, name, own_seed, pretrained)
        if config.stage == "finetuned":
            where = f"{domain.name}-{name}-{seed}-{number}"
            model = fit(experiment, model, seen, where, own_seed, config.training)
        members.append(model)
    return members


def fit(
    experiment: Experiment, model: RecommenderModel, domain: Domain, where: str, seed: int, training: Mapping[str, Any]
) -> RecommenderModel:
    """A teacher fine-tuned on the domain; the best one on valid."""
    arguments = arguments_for(experiment, where, seed, training)

    def run(arguments: DistillationArguments, callbacks: Sequence[TrainerCallback] = (), resume: bool = False):
        return train(model, domain, arguments, patience=experiment.patience, callbacks=callbacks, resume=resume)

    if isinstance(model, RecformerModel):  # the paper's second stage lets queries settle on items that stand still;
        epochs = int(arguments.num_train_epochs)  # the causal variant's items never do
        second = 0 if isinstance(model, CausalRecformerModel) else epochs
        return finetune(run, arguments, stages=(epochs, second)).model.student
    return run(arguments).model.student


def fold_of_rows(domain: Domain, folds: int) -> np.ndarray:
    """The fold of every training row, `(rows,)`: all rows of a user are in one."""
    _, user = np.unique(np.asarray(domain.split.train["user_id"][:]), return_inverse=True)
    return user % folds

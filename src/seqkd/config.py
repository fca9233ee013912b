"""The settings of a whole experiment, checked before anything runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigError
from .parsing import parse

TEACHERS = ("sasrec", "unisrec", "recformer", "causal_recformer", "unim2rec")
KNOW_USERS = ("mf", "lightgcn", "fm", "deepfm")  # trained on pairs of user and item
STUDENTS = ("sasrec", *KNOW_USERS)


@dataclass
class TextConfig:
    """How item texts become vectors.

    Args:
        encoder: a text model of the Hub or a folder, or `minilm` for the small one of the extra `text`.
        pooling: `cls` or `mean`.
        max_length: tokens of a text.
        fields: columns of the item table that make the text.
    """

    encoder: str = "minilm"
    pooling: str = "mean"
    max_length: int = 64
    fields: Sequence[str] = ("title", "categories", "brand")

    def __post_init__(self) -> None:
        if isinstance(self.fields, str):
            raise ConfigError(f"text.fields is a list of columns, e.g. [{self.fields}], not a bare word.")
        self.fields = tuple(self.fields)  # as read from a file they are a list, and would differ from the same here


@dataclass
class ImageConfig:
    """Where item images are, for data that does not bring vectors of them (a column `image_features`).

    Args:
        folder: holds a folder for each domain with `<item_id>.jpg` (or .jpeg, .png, .webp); no images without.
        encoder: an image model of the Hub or a folder.
    """

    folder: str | None = None
    encoder: str = "openai/clip-vit-base-patch32"


@dataclass
class ModelConfig:
    """A model to train: which, its configuration fields, and training arguments that differ from the common ones."""

    type: str = "sasrec"
    model: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass
class TeacherConfig(ModelConfig):
    """A teacher; `type` is one of `TEACHERS`.

    Args:
        members: how many of them, alike but for the seed; their answers are averaged.
        pretrained: folder or Hub name to start from.
        pretraining: training arguments of a pre-training on all domains at once; none without.
        stage: `finetuned` on the domain, or `zero_shot` as pre-trained.
        folds: above 1, members are trained without one fold of the users each and answer for it (cross-fitting).
        text: fields of `TextConfig` that differ for this teacher.
    """

    members: int = 1
    pretrained: str | None = None
    pretraining: dict[str, Any] | None = None
    stage: str = "finetuned"
    folds: int = 1
    text: dict[str, Any] = field(default_factory=dict)


@dataclass
class Experiment:
    """What `examples/distill_mdsr.py` runs.

    Args:
        data: folders, files or Hub data sets, one or more domains each; `synthetic` is the embedded market.
        domains: the domains to distil for; all by default. Teachers are pre-trained on all in any case.
        protocol: `loo`, `temporal`, `preset`, or `ratio`, which asks each user for a set: for students of `KNOW_USERS`
            and teachers that are zero-shot.
        min_interactions: k-core filter.
        text: how item texts become vectors; `images`: where item images are, and how they do.
        student: the small model, trained alone and distilled; `type` is one of `STUDENTS`. Those that know users
            (`KNOW_USERS`) get histories as long as they are, others at most 50 items of them at a time.
        teachers: by name.
        method: fields of `CKDMDSRConfig`.
        method_weight: lambda_KD; label_weight: weight of the labels beside it.
        warm_start: start the distilled student's item table from the principal components of the teachers' items.
        list_length: items in the teachers' common list (catalogue candidates).
        training: training arguments of all models; `distillation`: what differs for the distilled student.
        distilled_model: configuration fields of the student that differ when it is distilled. Only what serving does
            not feel, as dropout: soft labels regularise too.
        patience: evaluations without gain after which training stops; 0 never stops early.
        seeds: for each, teachers, a student alone and a distilled student.
    """

    data: str | list[str] = "synthetic"
    domains: list[str] | None = None
    protocol: str = "loo"
    min_interactions: int = 0
    text: TextConfig = field(default_factory=TextConfig)
    images: ImageConfig = field(default_factory=ImageConfig)
    student: ModelConfig = field(default_factory=ModelConfig)
    teachers: dict[str, TeacherConfig] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)
    method_weight: float = 0.5
    label_weight: float = 1.0
    warm_start: bool = True
    list_length: int = 100
    training: dict[str, Any] = field(default_factory=dict)
    distillation: dict[str, Any] = field(default_factory=dict)
    distilled_model: dict[str, Any] = field(default_factory=dict)
    patience: int = 0
    seeds: list[int] = field(default_factory=lambda: [0])
    output_dir: str = "outputs/distill_mdsr"

    def check(self) -> None:
        """What would otherwise fail only after teachers are trained.

        Raises:
            ConfigError: naming the setting.
        """
        if not self.teachers:
            raise ConfigError(
                "there is no teacher. Add teachers, e.g. --config configs/ckd_mdsr/sasrec_synthetic.yaml."
            )
        if self.student.type not in STUDENTS:
            raise ConfigError(f"student.type must be one of {STUDENTS}, got {self.student.type!r}.")
        for name, teacher in self.teachers.items():
            if teacher.type not in TEACHERS:
                raise ConfigError(f"teachers.{name}.type must be one of {TEACHERS}, got {teacher.type!r}.")
            if teacher.stage not in ("finetuned", "zero_shot"):
                raise ConfigError(f"teachers.{name}.stage must be 'finetuned' or 'zero_shot', got {teacher.stage!r}.")
            if min(teacher.members, teacher.folds) < 1 or (teacher.folds > 1 and teacher.members > 1):
                raise ConfigError(
                    f"teachers.{name}: members={teacher.members} and folds={teacher.folds}, but at least 1 each, and "
                    "only one of them above 1."
                )
            if max(teacher.members, teacher.folds) > 1 and self.method.get("candidates", "in_batch") == "in_batch":
                raise ConfigError(
                    f"teachers.{name}: several members or folds are combined as lists, which in-batch candidates "
                    "have not. Set method.candidates to catalogue."
                )
        if not self.seeds:
            raise ConfigError("seeds is empty; give at least one, e.g. [0].")


def read_experiment(arguments: Sequence[str] | None = None, default: str | os.PathLike | None = None) -> Experiment:
    """The experiment of the command line, checked; arguments and errors are those of `parse`."""
    experiment = parse(
        Experiment, "Distil a small sequential recommender from pre-trained teachers.", arguments, default
    )
    experiment.check()
    return experiment

"""The settings of a whole experiment, from YAML and the command line, checked before anything runs."""

from __future__ import annotations

import difflib
import os
import re
import sys
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from huggingface_hub.errors import StrictDataclassError
from jsonargparse import ArgumentParser, Namespace
from transformers import PreTrainedConfig

from .errors import ConfigError, SeqKDError

Made = TypeVar("Made")
PLAIN: dict[Any, tuple[type, str]] = {  # types of values that files and the command line have, and what we call them
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    bool: (bool, "true or false"),
    str: (str, "text"),
    NoneType: (NoneType, "null"),
}
LISTS = (list, tuple, Sequence)
# how jsonargparse tells of a name that it does not know, and below which other one
UNKNOWN = re.compile(r"(?:[Oo]ption '|[Kk]ey '|recognized arguments: --)(?P<name>[\w.-]+)")
BELOW = re.compile(r"(?:Parser key \"|Group ')(?P<name>[\w.-]+)")
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
    """Parse `--config file.yaml` and `--name value` overrides; a misspelt name is an error.

    Args:
        arguments: those of the command line by default.
        default: the YAML file that holds when the command line names none.
    """
    experiment = parse(
        Experiment, "Distil a small sequential recommender from pre-trained teachers.", arguments, default
    )
    experiment.check()
    return experiment


def parse(
    kind: type[Made],
    description: str,
    arguments: Sequence[str] | None = None,
    default: str | os.PathLike | None = None,
) -> Made:
    """A dataclass of settings from the command line and its `--config`; arguments as of `read_experiment`.

    What cannot be read ends the program with exit code 2 and one line, which names the closest setting.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if default is not None and not any(argument.split("=")[0] == "--config" for argument in arguments):
        arguments = ["--config", str(default), *arguments]
    parser = ArgumentParser(description=description, exit_on_error=False)  # it would print its whole usage first
    parser.add_argument("--config", action="config", help="YAML file with any of the settings below.")
    parser.add_class_arguments(kind, nested_key=None)
    groups = dict(_groups(kind))
    try:
        parsed = parser.parse_args(arguments)
    except ArgumentError as error:
        parser.exit(2, f"error: {_in_a_line(str(error), groups)}\n")
    usual = parser.get_defaults()
    for name, names in groups.items():  # jsonargparse lets pass what is no group, or nothing
        if isinstance(usual.get(name), Namespace) and not isinstance(parsed.get(name), Namespace):
            parser.exit(2, f"error: {name} holds settings, {', '.join(names)}, but is {parsed.get(name)!r} here.\n")
    values = vars(parser.instantiate_classes(parsed))
    return kind(**{item.name: values[item.name] for item in fields(kind)})  # type: ignore[arg-type]


def _groups(kind: Any, name: str = "") -> Iterator[tuple[str, list[str]]]:
    """The settings of a dataclass, and of those inside it by their dotted names."""
    yield name, [item.name for item in fields(kind)]
    for item, wanted in get_type_hints(kind).items():
        for inner in (wanted, *get_args(wanted)):  # also by name, as teachers, or optional
            if is_dataclass(inner):
                yield from _groups(inner, f"{name}.{item}".lstrip("."))


def _in_a_line(message: str, groups: Mapping[str, Sequence[str]]) -> str:
    """What jsonargparse says in one line; of a name that is no setting the closest one."""
    unknown, below = UNKNOWN.search(message), BELOW.search(message)
    if unknown is None:
        return " ".join(message.split())
    group, _, name = ".".join(found["name"] for found in (below, unknown) if found).rpartition(".")
    while group not in groups:  # what is below a misspelt name
        group, _, name = group.rpartition(".")
    where = f" in {group}" if group else ""
    close = difflib.get_close_matches(name, groups[group], n=1)
    if not close:
        places = {each: f"{other}.{each}" for other, names in groups.items() if other for each in names}
        close = [places[each] for each in difflib.get_close_matches(name, places, n=1)]
    hint = f"Did you mean {close[0]!r}?" if close else f"There are {list(groups[group])}."
    return f"there is no setting {name!r}{where}. {hint}"


def make(kind: type[Made], values: Mapping[str, Any], where: str, **fixed: Any) -> Made:
    """`kind(**values)`, where a name that is no field is an error with the closest field named.

    Raises:
        ConfigError: an unknown name, or a value that is of the wrong type or that the kind refuses.
    """
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"{where}: {kind.__name__} has no field {name!r}.{hint}")
    check_types(kind, values, where)
    try:
        return kind(**{**values, **fixed})
    except SeqKDError:
        raise
    except (StrictDataclassError, ValueError) as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from error


def check_types(kind: type, values: Mapping[str, Any], where: str) -> None:
    """Compare values with the types that a dataclass says: numbers, text, true or false, lists of them, or null.

    Others pass: what they are is for the dataclass to see.

    Raises:
        ConfigError: naming the setting.
    """
    if issubclass(kind, PreTrainedConfig):  # strict: it checks all types itself
        return
    wanted = get_type_hints(kind)
    for name, value in values.items():
        if not _fits(value, wanted[name]):
            raise ConfigError(f"{where}: {name} must be {_called(wanted[name])}, got {value!r}.")


def _fits(value: Any, wanted: Any) -> bool:
    origin, inside = get_origin(wanted), get_args(wanted)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inside)
    if origin in LISTS:
        return isinstance(value, (list, tuple)) and all(_fits(one, inside[0]) for one in value)
    if wanted not in PLAIN:
        return True
    return isinstance(value, PLAIN[wanted][0]) and (wanted is bool or not isinstance(value, bool))  # True is an int


def _called(wanted: Any) -> str:
    """A type that `_fits` compares, in words."""
    inside = get_args(wanted)
    if get_origin(wanted) in (Union, UnionType):
        return " or ".join(map(_called, inside))
    return f"a list, each {_called(inside[0])}" if inside else PLAIN[wanted][1]

"""The settings of a run on a stream."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from ..config import ImageConfig, ModelConfig, TeacherConfig, TextConfig
from ..data.stream_cut import SPLITS
from ..errors import ConfigError
from ..evaluation.consensus import LISTED
from ..evaluation.stream import QUERIES
from ..pipeline.kinds import KINDS
from ..recommenders.user_configuration import UserRecommenderConfig
from ..settings import make
from .fit import FitConfig, methods_of
from .graph import POLICIES
from .growth import Init, Lengths

FILE_NAME = "config.json"
TWO_STAGES = "recformer"  # a kind that a stage of a stream does not train as its paper does; `causal_recformer` has one
STAGES = ("base", "generate", "update_student", "update_teacher")
SOURCES = {"update_student": ("stability", "plasticity"), "update_teacher": ("stability", "plasticity", "student")}
UNWEIGHTED = ("multvae", "itemae")  # of those that hold interactions
LAYERED = ("mf", "lightgcn")  # whose layers lwc_kd knows
AGREED = {"query_topk", "query_scores", "item_topk"}  # tables on which several teachers can agree


def _base() -> FitConfig:
    return FitConfig(training={"learning_rate": 5e-3}, every=4)


def _generate() -> FitConfig:
    return FitConfig({"full_ce": {"max_queries": 256}}, {"full_ce": 1.0}, training={"learning_rate": 5e-3})


def _update_student() -> FitConfig:
    training = {"learning_rate": 2e-3, "num_train_epochs": 50}
    return FitConfig({"replay": {"draws": 5, "redraw": 50}}, {"replay": 0.5}, training=training, every=10)


def _update_teacher() -> FitConfig:
    replay = {"draws": 5, "decay": 5.0, "redraw": 20}
    return FitConfig({"replay": replay}, {"replay": 0.5}, training={"learning_rate": 2e-3}, every=10)


@dataclass
class BlockConfig:
    """How a log becomes blocks; see `next_block`."""

    split: str = "temporal"
    queries: str = "users"
    max_length: int = 50
    held_out: float = 0.1

    def __post_init__(self) -> None:
        for name, able in (("split", SPLITS), ("queries", QUERIES)):
            if getattr(self, name) not in able:
                raise ConfigError(f"blocks.{name} must be one of {able}, got {getattr(self, name)!r}.")
        if not 0 < self.held_out < 0.5 or self.max_length < 1:
            raise ConfigError(
                f"blocks.held_out must lie between 0 and 0.5 and blocks.max_length be at least 1, got {self.held_out}, "
                f"{self.max_length}."
            )


@dataclass
class ContinualConfig:
    """A student and its teachers on a stream; the defaults are those of configs/ccd/yelp_mf.yaml, which are measured.

    Args:
        student, teachers: the models, by name. Teachers may read what blocks tell about their items (UniSRec), and
            then start from a `pretrained` one; of the other fields of `TeacherConfig` none but `text` is read.
        base: how teachers are trained on the base block.
        generate: how a fresh student is distilled from the teachers after each block.
        update_student, update_teacher: how either learns a block; `replay` among the methods rehearses earlier users.
        init, neighbours, lengths: how new rows start, see `grow`.
        graph, decay: what a graph keeps, see `renew_edges`.
        stability, plasticity: share that each proxy keeps of itself, see `follow`.
        rehearsed: length of the lists that proxies tell of earlier users.
        avoided: as many of the best items in each of these lists are no negatives; 0 avoids none.
        fresh: generate each student from scratch, as the paper has it; else it begins as the updated one.
        teach_everyone: let the teachers speak of all users when a student is generated, not only of the block's.
        list_length: length of the teachers' lists of which a student is generated.
        metric: Recall@K or NDCG@K on validation, by which all is chosen.
        blocks: how a raw log becomes a block.
        cutoffs: K of all that is measured; the metric's is one of them.
        margin: share of the metric by which an updated student may fall below the frozen one, in the mean over all
            blocks so far, before the update is refused.
        seed: of everything.
        text, images: how teachers read items.
    """

    student: ModelConfig = field(default_factory=lambda: ModelConfig("mf", {"hidden_size": 8}))
    teachers: dict[str, TeacherConfig] = field(
        default_factory=lambda: {
            "lightgcn": TeacherConfig("lightgcn", {"hidden_size": 128, "num_layers": 2, "reg_weight": 0.0})
        }
    )
    base: FitConfig = field(default_factory=_base)
    generate: FitConfig = field(default_factory=_generate)
    update_student: FitConfig = field(default_factory=_update_student)
    update_teacher: FitConfig = field(default_factory=_update_teacher)
    init: str = "neighbours"
    neighbours: int = 20
    lengths: str = "peers"
    graph: str = "cumulative"
    decay: float = 0.5
    stability: float = 0.9
    plasticity: float = 0.0
    rehearsed: int = 100
    avoided: int = 0
    fresh: bool = False
    teach_everyone: bool = True
    list_length: int = 200
    metric: str = "recall@20"
    cutoffs: list[int] = field(default_factory=lambda: [20, 50, 100])
    blocks: BlockConfig = field(default_factory=BlockConfig)
    margin: float = 0.1
    seed: int = 0
    text: TextConfig = field(default_factory=TextConfig)
    images: ImageConfig = field(default_factory=ImageConfig)

    def __post_init__(self) -> None:
        self.cutoffs = list(self.cutoffs)
        self._check_models()
        self._check_methods()
        for name, able in (("init", get_args(Init)), ("lengths", get_args(Lengths))):
            if getattr(self, name) not in able:
                raise ConfigError(f"{name} must be one of {able}, got {getattr(self, name)!r}.")
        if self.graph not in POLICIES:
            raise ConfigError(f"graph must be one of {POLICIES}, got {self.graph!r}.")
        if self.metric not in {f"{name}@{k}" for name in ("recall", "ndcg") for k in self.cutoffs}:
            raise ConfigError(f"metric must be recall@K or ndcg@K, K of cutoffs {self.cutoffs}, got {self.metric!r}.")
        for name in ("stability", "plasticity", "margin"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a share from 0 to 1, got {getattr(self, name)}.")
        if self.graph == "decayed":
            if not 0 < self.decay < 1:
                raise ConfigError(f"decay must lie between 0 and 1, got {self.decay}. To keep all: graph: cumulative.")
            alike = sorted({model.type for model in (self.student, *self.teachers.values())} & set(UNWEIGHTED))
            if alike:
                raise ConfigError(f"{alike} count every interaction alike: graph is 'cumulative' or 'block' for them.")
        for name, least in (("neighbours", 1), ("rehearsed", 1), ("list_length", 1), ("avoided", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}.")

    def _check_models(self) -> None:
        if not self.teachers:
            raise ConfigError("there is no teacher. Add one, e.g. teachers: {lightgcn: {type: lightgcn}}.")
        without = sorted(kind for kind in KINDS if KINDS[kind].content is None)
        if self.student.type not in without:
            raise ConfigError(f"student.type must be one of {without}, got {self.student.type!r}.")
        if self.student.training:
            raise ConfigError("student.training does nothing: every stage has its own, e.g. base.training.")
        able = sorted(set(KINDS) - {TWO_STAGES})
        for name, teacher in self.teachers.items():
            if teacher.type not in able:
                raise ConfigError(f"teachers.{name}.type must be one of {able}, got {teacher.type!r}.")
            for unread in ("training", "members", "pretraining", "stage", "folds"):
                if getattr(teacher, unread) != getattr(TeacherConfig(), unread):
                    raise ConfigError(
                        f"teachers.{name}.{unread} does nothing on a stream, where every stage has its own training, "
                        "e.g. base.training, and members are teachers of their own. Leave it out."
                    )
            if teacher.pretrained is not None and teacher.type in without:
                raise ConfigError(
                    f"teachers.{name}: a {teacher.type} knows items by their ids, so that a pre-trained one knows "
                    "none of this stream. Take one that reads texts, e.g. unisrec, or leave `pretrained` out."
                )
            make(TextConfig, {**vars(self.text), **teacher.text}, f"teachers.{name}.text")
        models = {"student": self.student, **{f"teachers.{name}": t for name, t in self.teachers.items()}}
        for where, model in models.items():
            make(KINDS[model.type].config, model.model, f"{where}.model")  # a misspelt field is an error now
        check_queries(models, self.blocks.queries, "blocks.queries is")

    def _check_methods(self) -> None:
        """What would otherwise fail only after teachers are trained, or not at all."""
        if self.base.methods:
            raise ConfigError("base.methods does nothing: the first teachers have nobody to learn from.")
        wanted = {}  # tables, by stage and method
        for stage in STAGES:
            methods = methods_of(getattr(self, stage), stage)
            wanted[stage] = {name: method.requires for name, method in methods.items()}
        for name, tables in wanted["generate"].items():
            if len(self.teachers) > 1 and tables - AGREED:
                raise ConfigError(
                    f"generate.methods.{name} reads {sorted(tables - AGREED)}, but {len(self.teachers)} teachers agree "
                    "on rankings alone. Take one teacher, or a method that reads rankings, e.g. rrd."
                )
        for stage, sources in SOURCES.items():
            draws = getattr(self, stage).methods.get("replay", {}).get("draws")
            if isinstance(draws, dict) and set(draws) != set(sources):
                raise ConfigError(
                    f"{stage}.methods.replay.draws names {sorted(draws)}, but what is drawn from are {list(sources)}. "
                    "Name each; 0 leaves one out."
                )
            if self.avoided and ("replay" not in wanted[stage] or self.blocks.queries != "users"):
                raise ConfigError(
                    f"avoided={self.avoided} does nothing in {stage}: what is no negative is what replay lists, "
                    "for models that know users. Set avoided to 0."
                )
            if "lwc_kd" in wanted[stage]:
                models = [self.student] if stage == "update_student" else self.teachers.values()
                unable = sorted({model.type for model in models} - set(LAYERED))
                if unable:
                    raise ConfigError(f"{stage}.methods.lwc_kd keeps {list(LAYERED)} as they were, not {unable}.")
            others = [name for name, tables in wanted[stage].items() if tables and name != "replay"]
            if "replay" in wanted[stage] and others:
                raise ConfigError(
                    f"{stage}.methods has replay, which hears proxies about earlier users, and {others}, which want to "
                    "hear about this block's. Take one of the two."
                )

        if len(self.teachers) > 1 and max(self.cutoffs) > LISTED:
            raise ConfigError(
                f"teachers are measured together on lists of {LISTED} items: cutoffs {self.cutoffs} go beyond them."
            )

    def save(self, folder: Path) -> None:
        """Write `config.json`, which is there when it is whole."""
        fresh = folder / f"{FILE_NAME}.new"
        fresh.write_text(json.dumps(dataclasses.asdict(self), indent=2), encoding="utf-8")
        os.replace(fresh, folder / FILE_NAME)

    @classmethod
    def load(cls, folder: Path) -> ContinualConfig:
        """Read what `save` wrote."""
        return cls.of(json.loads((folder / FILE_NAME).read_text(encoding="utf-8")))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ContinualConfig:
        """From plain values, as YAML has them.

        Raises:
            ConfigError: a name that is no field, here or further in, or a value that does not fit.
        """
        made: dict[str, Any] = dict(values)
        if "student" in made:
            made["student"] = make(ModelConfig, made["student"], "student")
        if "teachers" in made:
            made["teachers"] = {n: make(TeacherConfig, t, f"teachers.{n}") for n, t in made["teachers"].items()}
        for name, kind in (("text", TextConfig), ("images", ImageConfig)):
            if name in made:
                made[name] = make(kind, made[name], name)
        for stage in STAGES:
            if stage in made:
                made[stage] = make(FitConfig, made[stage], stage)
        if "blocks" in made:
            made["blocks"] = make(BlockConfig, made["blocks"], "blocks")
        return make(cls, made, "the stream's configuration")


def check_queries(models: Mapping[str, ModelConfig], queries: str, says: str) -> None:
    """Refuse models that learn nothing from blocks of these `queries`.

    Args:
        models: by where they are set.
        says: what says so, in the words of the user.

    Raises:
        ConfigError: some know users, who are asked what they want, and others read the order of a history.
    """
    sides = {where: issubclass(KINDS[model.type].config, UserRecommenderConfig) for where, model in models.items()}
    wrong = {where: models[where].type for where, users in sides.items() if users != (queries == "users")}
    if not wrong:
        return
    kinds = {True: "know users and learn what each wants, queries: users", False: "read histories, queries: positions"}
    told = "; ".join(
        f"{[f'{where} ({models[where].type})' for where, side in sides.items() if side == users]} {kinds[users]}"
        for users in sorted(set(sides.values()))
    )
    raise ConfigError(f"{says} {queries!r}, which does not suit {sorted(wrong)}: {told}. A stream is of one side.")

"""One stage of training on a block: from a model as it stands to the best one on the block's validation."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from torch import Tensor
from transformers import EarlyStoppingCallback, PrinterCallback, TrainerCallback

from ..batches.collators import SequenceDataset
from ..batches.target_sets import TargetSets
from ..data.stream import Block
from ..distiller import Distiller
from ..errors import ConfigError
from ..evaluation.stream import asks_for_sets
from ..knowledge import Knowledge
from ..method import Method
from ..methods import METHODS
from ..pipeline.teachers import callbacks_of
from ..recommenders.recommender import RecommenderModel
from ..recommenders.user_recommender import UserRecommender
from ..settings import check_types, make
from ..trainer import DistillationTrainer
from ..training_args import DistillationArguments

OWN = (  # arguments that a stage sets itself
    *("output_dir", "seed", "eval_strategy", "eval_steps", "save_strategy", "save_steps", "save_only_model"),
    *("save_total_limit", "load_best_model_at_end", "metric_for_best_model", "metric_ks"),
)


@dataclass
class FitConfig:
    """How a stage trains; the defaults are CCD's (spec ccd 8).

    Args:
        methods: settings of each method by its name in `METHODS`; `weights`: their loss weights.
        label_weight: weight of the recommendation loss.
        training: training arguments that differ, e.g. `{"learning_rate": 5e-3}`.
        every: epochs between two looks at validation, the first before training: a stage never ends below its start.
            The last is after the last epoch.
        patience: looks without a better one after which it ends.
    """

    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    label_weight: float = 1.0
    training: dict[str, Any] = field(default_factory=dict)
    every: int = 5
    patience: int = 2

    def __post_init__(self) -> None:
        if min(self.every, self.patience) < 1:
            raise ConfigError(f"every={self.every} and patience={self.patience} must be at least 1.")
        astray = set(self.weights) - set(self.methods)
        if astray:
            raise ConfigError(f"weights name {sorted(astray)}, but the methods are {sorted(self.methods)}.")
        unknown = set(self.training) - {each.name for each in fields(DistillationArguments)}
        if unknown:
            raise ConfigError(f"training names {sorted(unknown)}, which are no training arguments.")
        check_types(DistillationArguments, self.training, "training")
        own = set(self.training) & set(OWN)
        if own:
            raise ConfigError(f"training names {sorted(own)}, which a stage sets itself; see `every` and `metric`.")


def methods_of(config: FitConfig, where: str) -> dict[str, Method]:
    """The methods of a stage, each with its settings.

    Raises:
        ConfigError: there is no such method or setting.
    """
    unknown = set(config.methods) - set(METHODS)
    if unknown:
        raise ConfigError(f"{where}.methods names {sorted(unknown)}; there are {sorted(METHODS)}.")
    return {
        name: METHODS[name](make(METHODS[name].config_class, settings, f"{where}.methods.{name}"))
        for name, settings in config.methods.items()
    }


def require_sets(block: Block, what: str) -> None:
    """Refuse to train on pairs of user and item where old items are context: some of them are held out.

    Raises:
        ConfigError: the block asks for positions.
    """
    if not asks_for_sets(block):
        raise ConfigError(
            f"{what} learns all items of a row, but rows of block {block.number} hold histories, which begin with what "
            "earlier blocks test. Cut the stream with queries='users', or take SASRec."
        )


def rows_for(rows: Dataset, block: Block, model: RecommenderModel, avoid: Tensor | None = None) -> SequenceDataset:
    """Rows about the items of a block, and about its users where the model knows users."""
    if not isinstance(model, UserRecommender):
        return SequenceDataset(rows, len(block.catalogue))
    require_sets(block, type(model).__name__)
    return SequenceDataset(rows, len(block.catalogue), block.users, avoid)


def part_of(block: Block, part: str, own: Block, model: RecommenderModel) -> SequenceDataset:
    """What a block holds out, `valid` or `test`, as a model reads it that has been grown to block `own`."""
    kind = TargetSets if asks_for_sets(block) else SequenceDataset
    return kind(block.part(part), len(own.catalogue), own.users if isinstance(model, UserRecommender) else None)


def fit(
    model: RecommenderModel,
    block: Block,
    config: FitConfig,
    folder: Path,
    *,
    seed: int,
    methods: Mapping[str, Method] | None = None,
    knowledge: Mapping[str, Knowledge] | None = None,
    rows: Dataset | None = None,
    avoid: Tensor | None = None,
    metric: str = "recall@20",
) -> dict[str, Any]:
    """Train a model in place; it ends as it was best on the block's validation, or as it began.

    Args:
        folder: where checkpoints go while it trains.
        methods: built already; `config.weights` names their weights.
        rows: what is trained on instead of the block's own training part.
        avoid: pairs that are no negatives, see `SequenceDataset`; read where the model knows users.

    Returns:
        `start` and `best`, the metric on validation before training and of the model returned; `epochs` and
        `steps`; `trace`, the metric by epoch.
    """
    train = rows_for(block.train if rows is None else rows, block, model, avoid)
    torch.manual_seed(seed)  # what methods draw when they are prepared; the Trainer seeds itself
    distiller = Distiller(model, methods, config.weights, knowledge, config.label_weight)
    k = int(metric.rpartition("@")[2])
    arguments = make(
        DistillationArguments,
        {
            "num_train_epochs": 100,
            "per_device_train_batch_size": 2048,
            "logging_strategy": "epoch",
            "disable_tqdm": True,
            "report_to": [],
            "tail_queries": knowledge is not None and len(knowledge) > 0,
            **config.training,
            "eval_strategy": "steps",
            "save_strategy": "steps",
            "save_only_model": True,
            "save_total_limit": 1,
            "load_best_model_at_end": True,
            "metric_for_best_model": metric,
            "metric_ks": (k,),
        },
        "training",
        output_dir=str(folder),
        seed=seed,
    )
    per_step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    steps = -(-len(cast(Sized, model.training_rows(train))) // per_step)
    arguments.eval_steps = arguments.save_steps = max(config.every * steps, 1)
    looks = [_LastLook(), *callbacks_of(model), EarlyStoppingCallback(config.patience)]
    trainer = DistillationTrainer(distiller, arguments, train, part_of(block, "valid", block, model), looks)
    trainer.remove_callback(PrinterCallback)  # a stage is a line of the run's log, see `Ledger`
    start = trainer.evaluate()[f"eval_{metric}"]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer.train()
    best = trainer.state.best_metric
    if best is None or best <= start:
        model.load_state_dict(before)
        best = start
    model.eval()
    history = [entry for entry in trainer.state.log_history if f"eval_{metric}" in entry]
    return {
        "start": start,
        "best": best,
        "epochs": round(trainer.state.epoch or 0),
        "steps": trainer.state.global_step,
        "trace": {round(entry["epoch"] or 0): round(entry[f"eval_{metric}"], 5) for entry in history},
    }


class _LastLook(TrainerCallback):
    """Look at validation after the last epoch, too: what was trained since the last look would be lost."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_evaluate = True

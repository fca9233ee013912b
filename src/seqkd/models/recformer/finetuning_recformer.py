"""Two-stage fine-tuning of Recformer (arXiv:2305.13731, section 2.3.2) on top of the trainer everybody uses.

The loss is that of any recommender (`config.loss_type`: softmax over the catalogue, or sampled), against item vectors
that receive no gradient. What is special is when these are computed.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...errors import ConfigError
from ...files.checkpoints import checkpoints, problem_with
from ...training_args import DistillationArguments
from .encode_items import EncodeItems

if TYPE_CHECKING:  # the trainer of transformers takes its time to import
    from transformers import Trainer


AnyTrainer = TypeVar("AnyTrainer", bound="Trainer")


def finetune(
    fit: Callable[[DistillationArguments, Sequence[TrainerCallback], bool], AnyTrainer],
    arguments: DistillationArguments,
    *,
    stages: tuple[float, float] | None = None,
    resume: bool = False,
) -> AnyTrainer:
    """Stage 1 reads all items anew at the start of each epoch; stage 2 goes on from the best with its item vectors.

    Both write to folders of their own, `stage1` and `stage2`. The best of both stages on valid is what the model of
    the returned trainer holds: stage 2 has to beat what stage 1 reached.

    Args:
        fit: runs one stage with these arguments and callbacks, from the last checkpoint if the third argument says so,
            and returns its trainer. The same model each time; early stopping is its business.
        arguments: of either stage; `output_dir` holds the folders.
        stages: the most epochs of each, in place of `num_train_epochs` for both. The second may be 0.
        resume: go on from the newest complete checkpoint of the newest stage, or start where there is none.

    Raises:
        ConfigError: no best model is kept, or stage 1 has no epochs.
    """
    if not arguments.load_best_model_at_end:
        raise ConfigError(
            "the second stage starts from the best model of the first. Set load_best_model_at_end=True, "
            'eval_strategy="epoch" and save_strategy="best".'
        )
    epochs = (arguments.num_train_epochs,) * 2 if stages is None else stages
    if epochs[0] <= 0 or epochs[1] < 0:
        raise ConfigError(f"the stages must be some and any number of epochs, got {epochs}.")
    first, second = (_stage(arguments, number, most) for number, most in enumerate(epochs, start=1))
    if resume and _begun(second):
        return fit(second, [], True)
    trainer = fit(first, [EncodeItems("epoch")], resume and _begun(first))
    return fit(second, [_GoOnFrom(trainer.state)], False) if epochs[1] else trainer


class _GoOnFrom(TrainerCallback):
    """What another run reached is the best so far: it counts for early stopping, and is loaded unless it is beaten."""

    def __init__(self, reached: TrainerState) -> None:
        self.metric, self.checkpoint = reached.best_metric, reached.best_model_checkpoint

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        state.best_metric, state.best_model_checkpoint = self.metric, self.checkpoint


def _stage(arguments: DistillationArguments, number: int, epochs: float) -> DistillationArguments:
    stage = copy.copy(arguments)
    stage.output_dir = os.path.join(str(arguments.output_dir), f"stage{number}")
    stage.num_train_epochs = epochs
    return stage


def _begun(arguments: DistillationArguments) -> bool:
    return any(problem_with(folder) is None for folder in checkpoints(str(arguments.output_dir)))

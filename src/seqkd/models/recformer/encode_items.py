"""When the item vectors of a Recformer are computed anew while it trains."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ...errors import ConfigError


class EncodeItems(TrainerCallback):
    """Calls `student.encode_items()` of the trained `Distiller`, so that scores are about items as they are read now.

    Args:
        when: `evaluation`, before each evaluation or checkpoint and at the end (pre-training, which learns from items
            read afresh in every step and needs the vectors only to be measured and served), or `epoch`, at the start
            of each (the first stage of fine-tuning: within an epoch the vectors stand still).

    Raises:
        ConfigError: `when` is neither word.
    """

    def __init__(self, when: str = "evaluation") -> None:
        if when not in ("evaluation", "epoch"):
            raise ConfigError(f"when must be 'evaluation' or 'epoch', got {when!r}.")
        self.when = when

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        resumed_within = bool((state.epoch or 0) % 1)  # the checkpoint holds the vectors of this epoch's start
        if self.when == "epoch" and not resumed_within:
            kw["model"].student.encode_items()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        if self.when == "evaluation" and (control.should_evaluate or control.should_save):
            kw["model"].student.encode_items()

    on_epoch_end = on_step_end

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        if self.when == "evaluation":
            kw["model"].student.encode_items()

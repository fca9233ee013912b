"""Time seqkd's SASRec: its trainer's own epoch over packed sequences, and its trainer's own evaluation."""

from __future__ import annotations

import tempfile

from protocol import Clock, Report, Setting, arguments, one_thread, timed, versions_of
from transformers import TrainerCallback, set_seed

from seqkd import (
    DistillationArguments,
    DistillationTrainer,
    Distiller,
    SASRecConfig,
    SASRecModel,
    SequenceDataset,
    Split,
    leave_one_out,
    load_interactions,
)

NOTES = [
    "whole sequences, several packed into one row; logits at real targets only; the batch size is the default",
    "an epoch is what Trainer runs between on_epoch_begin and on_epoch_end; one epoch goes ahead as warm-up",
    "evaluation is Trainer.evaluate over the valid users, history not masked",
]


class EpochClock(TrainerCallback):
    """Reports each epoch after the warm-up epoch, when the trainer logs its loss."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_epoch_begin(self, args, state, control, **kwargs) -> None:
        self.warming_up = state.global_step == 0 and not self.report.smoke
        self.clock = Clock()

    def on_epoch_end(self, args, state, control, **kwargs) -> None:
        self.times = self.clock.read()

    def on_log(self, args, state, control, logs, **kwargs) -> None:
        if "loss" in logs and not self.warming_up:
            self.report.add_epoch(*self.times, logs["loss"])


def make_model(split: Split, setting: Setting) -> SASRecModel:
    config = SASRecConfig(
        num_items=len(split.catalogue),
        hidden_size=setting.width,
        num_hidden_layers=setting.layers,
        num_attention_heads=setting.heads,
        intermediate_size=setting.inner,
        max_position_embeddings=setting.max_length,
        hidden_dropout_prob=setting.dropout,
        attention_probs_dropout_prob=setting.dropout,
        loss_type="softmax",
    )
    return SASRecModel(config)


def make_arguments(setting: Setting, folder: str, epochs: int, smoke: bool) -> DistillationArguments:
    return DistillationArguments(
        output_dir=folder,
        num_train_epochs=epochs + 1,
        max_steps=2 if smoke else -1,
        learning_rate=setting.learning_rate,
        seed=setting.seed,
        history="unmasked",
        metric_ks=setting.top_k,
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )


def main() -> None:
    options, setting = arguments(), Setting()
    versions = versions_of("seqkd", "torch", "transformers", "datasets", "accelerate", "numpy", "pyarrow")
    report = Report("seqkd", versions, one_thread(), 0, "sequences", NOTES, options.smoke)
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        set_seed(setting.seed)
        split = leave_one_out(load_interactions(options.data), max_length=setting.max_length)
        model = make_model(split, setting)
        train, valid = (SequenceDataset(part, model.config.num_items) for part in (split.train, split.valid))
        trainer = DistillationTrainer(
            Distiller(model),
            make_arguments(setting, folder, options.epochs, options.smoke),
            train,
            valid,
            callbacks=[EpochClock(report)],
        )
        report.setup_s = round(clock.read()[0], 2)
        report.batch_size = trainer.args.train_batch_size
        report.n_rows = len(train)
        report.n_targets = sum(len(row.item_ids) - row.first_target for row in train)
        report.n_items = model.config.num_items
        report.n_eval_users = len(valid)

        trainer.train()
        for _ in range(options.evals):
            wall, cpu, metrics = timed(trainer.evaluate)
            report.add_eval(wall, cpu, {name.removeprefix("eval_"): value for name, value in metrics.items()})


if __name__ == "__main__":
    main()

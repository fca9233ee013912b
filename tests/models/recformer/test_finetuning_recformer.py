"""Two stages: items read anew in each epoch, then the best model with the item vectors it was best with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.models.recformer.tiny_recformer import tiny_recformer
from tests.tiny import ITEMS, arguments, parts, rows_of, tiny_split
from transformers import EarlyStoppingCallback, TrainerCallback

from seqkd.batches.collators import SequenceDataset
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError
from seqkd.models.recformer import RecformerModel, finetune
from seqkd.trainer import DistillationTrainer

BEST = {
    "eval_strategy": "epoch",
    "save_strategy": "best",
    "load_best_model_at_end": True,
    "logging_strategy": "epoch",
    "num_train_epochs": 3,
    "learning_rate": 3e-3,
    "save_total_limit": 1,
}


class Watch(TrainerCallback):
    """The item vectors at the end of each epoch."""

    def __init__(self) -> None:
        self.vectors: list[torch.Tensor] = []

    def on_epoch_end(self, args, state, control, **kw):
        self.vectors.append(kw["model"].student.item_vectors.clone())


class Run:
    """A model, and how its stages are trained; `stop` kills one as a power cut would."""

    def __init__(self, folder: Path, patience: int = 0, **changes) -> None:
        split = tiny_split()
        self.train, self.valid = parts(split)
        self.model = tiny_recformer(RecformerModel, split, hidden_dropout_prob=0.1, **changes.pop("config", {}))
        self.arguments = arguments(folder, **{**BEST, **changes})
        self.patience = patience
        self.watches: list[Watch] = []
        self.trainers: list[DistillationTrainer] = []
        self.resumed: list[bool] = []
        self.stop: TrainerCallback | None = None

    def fit(self, arguments, callbacks, resume) -> DistillationTrainer:
        self.watches.append(Watch())
        extra = [self.watches[-1], *([EarlyStoppingCallback(self.patience)] if self.patience else [])]
        extra += [self.stop] if self.stop else []
        trainer = DistillationTrainer(
            Distiller(self.model), arguments, self.train, self.valid, callbacks=[*callbacks, *extra]
        )
        self.trainers.append(trainer)
        self.resumed.append(resume)
        trainer.train(resume_from_checkpoint=resume or None)
        return trainer


def test_items_are_read_anew_in_stage_1_and_stand_still_in_stage_2(tmp_path):
    run = Run(tmp_path)
    run.model.encode_items()
    untrained = run.model.item_vectors.clone()
    trainer = finetune(run.fit, run.arguments, stages=(3, 2))
    first, second = (watch.vectors for watch in run.watches)
    assert len(first) == 3 and len(second) == 2
    assert torch.equal(first[0], untrained)  # read before the first step
    assert not torch.equal(first[1], first[0]) and not torch.equal(first[2], first[1])
    assert torch.equal(second[0], second[1])
    assert any(torch.equal(second[0], vectors) for vectors in first)  # those of the best epoch of stage 1
    reached = [t.state.best_metric for t in run.trainers]
    assert reached[1] >= reached[0] and trainer is run.trainers[1]

    best = RecformerModel.from_pretrained(trainer.state.best_model_checkpoint)
    assert torch.equal(best.item_vectors, second[0]) and torch.equal(run.model.item_vectors, second[0])
    assert trainer.evaluate()["eval_ndcg@10"] == pytest.approx(reached[1])
    best.encode_items()
    assert not torch.equal(best.item_vectors, second[0])  # what it would read now is something else


def test_the_best_keeps_the_matrix_of_its_own_epoch(tmp_path):
    run = Run(tmp_path)
    trainer = finetune(run.fit, run.arguments, stages=(3, 0))
    assert len(run.trainers) == 1
    best = int(trainer.state.best_global_step / trainer.state.max_steps * 3) - 1
    reloaded = RecformerModel.from_pretrained(trainer.state.best_model_checkpoint)
    assert torch.equal(reloaded.item_vectors, run.watches[0].vectors[best])
    assert torch.equal(run.model.item_vectors, run.watches[0].vectors[best])


def test_a_second_stage_that_ruins_the_model_is_not_kept(tmp_path):
    class Ruin(TrainerCallback):
        @torch.no_grad()
        def on_step_end(self, args, state, control, **kw):
            if args.output_dir.endswith("stage2"):
                for parameter in kw["model"].parameters():
                    parameter.zero_()

    run = Run(tmp_path, patience=1)
    run.stop = Ruin()
    trainer = finetune(run.fit, run.arguments, stages=(2, 5))
    first = run.trainers[0].state
    assert trainer.state.best_metric == first.best_metric
    assert trainer.state.best_model_checkpoint == first.best_model_checkpoint
    assert trainer.state.epoch == 1  # patience counts against stage 1
    saved = RecformerModel.from_pretrained(first.best_model_checkpoint).state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in run.model.state_dict().items())


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_run_that_was_cut_goes_on(tmp_path, stage):
    settings = {"save_strategy": "epoch", "save_total_limit": None}
    whole = Run(tmp_path / "whole", **settings)
    finetune(whole.fit, whole.arguments, stages=(3, 2))

    class PowerCut(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kw):
            if args.output_dir.endswith(stage) and state.epoch == 1:
                raise KeyboardInterrupt

    cut = Run(tmp_path / "cut", **settings)
    cut.stop = PowerCut()
    with pytest.raises(KeyboardInterrupt):
        finetune(cut.fit, cut.arguments, stages=(3, 2))
    again = Run(tmp_path / "cut", **settings)
    finetune(again.fit, again.arguments, stages=(3, 2), resume=True)
    assert again.resumed == ([True, False] if stage == "stage1" else [True])
    expected = whole.model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.model.state_dict().items())


def test_resume_without_a_checkpoint_starts_anew(tmp_path):
    run = Run(tmp_path)
    finetune(run.fit, run.arguments, stages=(1, 0), resume=True)
    assert run.resumed == [False]


def test_both_stages_run_the_epochs_of_the_arguments(tmp_path):
    run = Run(tmp_path, num_train_epochs=2)
    finetune(run.fit, run.arguments)
    assert [trainer.state.num_train_epochs for trainer in run.trainers] == [2, 2]
    assert run.arguments.output_dir == str(tmp_path) and run.arguments.num_train_epochs == 2  # left as they were


@pytest.mark.parametrize("loss_type", ["softmax", "sampled_softmax"])
def test_it_learns_with_full_and_sampled_softmax_also_in_bfloat16(tmp_path, loss_type):
    run = Run(
        tmp_path,
        bf16=True,
        num_train_epochs=6,
        learning_rate=1e-2,
        config={"loss_type": loss_type, "num_negatives": 8, "temperature": 0.2},
    )
    trainer = finetune(run.fit, run.arguments, stages=(6, 1))
    measured = [e["eval_ndcg@10"] for e in run.trainers[0].state.log_history if "eval_ndcg@10" in e]
    assert trainer.state.best_metric > measured[0]
    assert all(parameter.dtype == torch.float32 for parameter in run.model.parameters())


def test_a_step_whose_users_have_one_item_is_no_error(tmp_path):
    run = Run(tmp_path, per_device_train_batch_size=1, num_train_epochs=1)
    run.train = SequenceDataset(rows_of([[1], [2, 3], [4]], False), ITEMS)
    finetune(run.fit, run.arguments, stages=(1, 0))


def test_arguments_that_keep_no_best_are_refused(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(ConfigError, match="load_best_model_at_end"):
        finetune(run.fit, arguments(tmp_path))
    with pytest.raises(ConfigError, match="epochs"):
        finetune(run.fit, run.arguments, stages=(0, 1))

"""The trainer: transformers' own, taught that a step is a set of queries and that a checkpoint holds a bare student."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from .batches.collators import UNLABELLED, SequenceDataset, require_sequences
from .batches.curriculum import Curriculum, QuerySampler, history_statistics
from .batches.pairs import TrainingPairs
from .batches.positives import Positives
from .distiller import Distiller
from .errors import CheckpointError, ConfigError, SeqKDError
from .evaluation.ranks import metrics_of, rank_targets
from .files.checkpoints import last_complete, problem_with, rotate, write_manifest
from .knowledge.interview import best_items
from .method import Epoch, Method
from .training_args import DistillationArguments

METHODS_FILE = "methods.safetensors"
STEP = ("targets", "query_ids")  # of all micro-batches and processes together
PER_QUERY = {"query_index", "histories", "user_ids", "targets", "negatives", "query_ids", "history_lengths"}


class DistillationTrainer(Trainer):
    """Trains a `Distiller` on a `SequenceDataset`; knows no method by name.

    One optimizer step gives the same loss and weights however it is carried: by one batch, by gradient accumulation
    or by several processes. Resuming, also in mid-epoch, is bit-identical to a run without interruption.
    """

    args: DistillationArguments
    model: Distiller
    train_dataset: SequenceDataset | TrainingPairs
    eval_dataset: SequenceDataset | None
    loss_is_scaled_for_ga = True  # losses are means over the queries of the whole step, see get_batch_samples

    def __init__(
        self,
        distiller: Distiller,
        args: DistillationArguments,
        train_dataset: SequenceDataset,
        eval_dataset: SequenceDataset | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
    ) -> None:
        require_sequences(train_dataset)
        self.collator = distiller.student.collator(tail=args.tail_queries, training=True)
        self.sequences = train_dataset
        self._positives: Positives | None = None
        super().__init__(
            model=distiller,
            args=args,
            data_collator=self.collator,
            train_dataset=distiller.student.training_rows(train_dataset),
            eval_dataset=eval_dataset,
            callbacks=callbacks,
            optimizers=optimizers,
        )
        self._require_labels(train_dataset)
        self._terms: dict[str, Tensor] = {}
        self._terms_steps = 0
        self.curriculum = self._only_curriculum()
        self.difficulty = self._measure(self.curriculum) if self.curriculum else torch.zeros(0)
        self.add_callback(_EpochBegin(self))

    def _require_labels(self, sequences: SequenceDataset) -> None:
        """A sequential student learns nothing from sets, but what teachers say at their ends."""
        taught = self.args.tail_queries and len(self.model.methods) > 0
        labelled = (np.diff(sequences.offsets) > sequences.first_target).any()
        if self.train_dataset is sequences and not taught and not labelled:
            raise ConfigError(
                "no row has a label: a split with queries='users' is for models that know users (MF, LightGCN). Split "
                "with queries='positions', or let teachers answer with tail_queries=True."
            )

    # ---- the queries of a step --------------------------------------------------------------------------------

    @property
    def step_batch_size(self) -> int:
        """Sequences of one optimizer step, over micro-batches and processes."""
        return self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size

    @property
    def epoch_steps(self) -> int:
        return -(-len(self.train_dataset) // self.step_batch_size)

    @property
    def total_steps(self) -> int:
        if self.args.max_steps > 0:
            return self.args.max_steps
        return int(self.epoch_steps * self.args.num_train_epochs)

    def _only_curriculum(self) -> Curriculum | None:
        found = [
            c for c in (cast(Method, method).curriculum() for method in self.model.methods.values()) if c is not None
        ]
        if len(found) > 1:
            raise ConfigError("two methods bring a curriculum; set curriculum to null in all but one.")
        return found[0] if found else None

    def _measure(self, curriculum: Curriculum) -> Tensor:
        """Difficulty of every query id, `(N,)`."""
        lengths, rarity = history_statistics(self.sequences, self.model.student.item_counts.cpu().numpy())
        return torch.from_numpy(curriculum.difficulty(lengths, rarity))

    def _get_train_sampler(self, train_dataset: Any = None) -> QuerySampler:
        dataset, curriculum, total = self.train_dataset, self.curriculum, self.total_steps
        if curriculum is None:
            return QuerySampler(len(dataset), self.step_batch_size, self.args.seed)
        asked = zip(*dataset.asked(self.args.tail_queries), strict=True)
        easiest = [self.difficulty[at : at + count].min() for at, count in asked]
        return QuerySampler(
            len(dataset),
            self.step_batch_size,
            self.args.seed,
            torch.stack(easiest).numpy(),
            lambda step: curriculum.competence(step, total),
        )

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, None]:
        """Fetch the micro-batches of one step and tell each about the whole: its labels and how many queries it has."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._terms_steps += 1
        batches = [self.model.look_up(self._unlock(batch)) for batch in batches]
        targets, query_ids = (torch.cat([batch[name] for batch in batches]).to(device) for name in STEP)
        if self.args.world_size > 1:
            both = torch.stack([targets, query_ids], dim=1)
            both = self.accelerator.gather(self.accelerator.pad_across_processes(both, pad_index=UNLABELLED - 1))
            targets, query_ids = both[both[:, 0] >= UNLABELLED].unbind(dim=1)
        labelled = targets[targets != UNLABELLED]
        step = {
            "step_targets": labelled,
            "step_query_ids": query_ids,
            "num_labelled": torch.tensor(float(max(len(labelled), 1)), device=device),
            "num_queries": torch.tensor(float(max(len(targets), 1)), device=device),
            "progress": torch.tensor(self.state.global_step / max(self.total_steps, 1), device=device),
        }
        return [{**batch, **step} for batch in batches], None

    def _unlock(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Leave out the queries that the curriculum still keeps locked."""
        if self.curriculum is None:
            return batch
        competence = self.curriculum.competence(self.state.global_step, self.total_steps)
        open_ = self.difficulty[batch["query_ids"].cpu()] <= competence
        if not open_.any():  # the easiest rows of all were drawn because nothing is unlocked yet
            return batch
        open_ = open_.to(batch["targets"].device)
        per_query = batch.keys() & PER_QUERY
        return {**batch, **{name: batch[name][open_] for name in per_query}}

    def begin_epoch(self) -> None:
        """Let the methods draw and anneal; a resumed run begins the epoch that was interrupted again."""
        number = int(self.state.epoch or 0)
        self.collator.seed, self.collator.epoch = self.args.seed, number  # before the workers of an epoch copy them
        if self._positives is None:
            self._positives = Positives(self.sequences)
        for order, method in enumerate(self.model.methods.values()):
            generator = torch.Generator().manual_seed(hash((self.args.seed, number, order)) % 2**63)
            epochs = self.total_steps / self.epoch_steps  # max_steps may end within one
            epoch = Epoch(number, epochs, generator, self._positives, self._student_topk, self.epoch_steps)
            cast(Method, method).on_epoch_begin(epoch)

    def _student_topk(self, k: int) -> Tensor:
        return best_items(self.model.student, self.sequences, k, batch_size=self.args.eval_batch_size)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], return_outputs=False, num_items_in_batch=None):
        """The distiller's loss, scaled so that the mean over processes is the mean over the step's queries.

        Raises:
            SeqKDError: the loss is not finite. The last checkpoint is kept.
        """
        output = model(**inputs)
        loss = output["loss"] * self.args.world_size
        if not torch.isfinite(loss):
            terms = {name: term.item() for name, term in output.items()}
            raise SeqKDError(
                f"the loss is not finite at step {self.state.global_step}: {terms}; query ids "
                f"{inputs['query_ids'][:8].tolist()}... The checkpoints in {self.args.output_dir} are untouched. "
                "Lower the learning rate or look at the knowledge of these queries."
            )
        if model.training:
            for name, term in output.items():
                if name != "loss":
                    self._terms[name] = self._terms.get(name, 0) + term.detach()
        return (loss, output) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._terms:
            sums = self.accelerator.reduce(torch.stack([*self._terms.values()]), reduction="sum").tolist()
            names = (name if "/" in name else f"loss_{name}" for name in self._terms)  # the first are statistics
            logs |= {name: round(s / self._terms_steps, 5) for name, s in zip(names, sums, strict=True)}
            self._terms, self._terms_steps = {}, 0
        super().log(logs, start_time)

    # ---- evaluation -------------------------------------------------------------------------------------------

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Full-catalogue metrics of the student; every process ranks its share, only rank counts are summed."""
        dataset, args = eval_dataset if eval_dataset is not None else self.eval_dataset, self.args
        if dataset is None:
            raise ConfigError("there is nothing to evaluate on; give the trainer an eval_dataset.")
        ranks = rank_targets(
            self.model.student,
            dataset,
            history=args.history,
            depth=max(args.metric_ks),
            batch_size=args.eval_batch_size,
            shard=(args.process_index, args.world_size),
        )
        histogram = self.accelerator.reduce(ranks.histogram().to(args.device), reduction="sum")
        metrics = {
            f"{metric_key_prefix}_{name}": value for name, value in metrics_of(histogram, args.metric_ks).items()
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(args, self.state, self.control, metrics)
        return metrics

    # ---- checkpoints ------------------------------------------------------------------------------------------

    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, ignore_keys_for_eval: Any = None
    ) -> Any:
        """As in transformers; `True` resumes from the newest checkpoint that is complete."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = str(last_complete(str(self.args.output_dir)))
        elif resume_from_checkpoint:
            problem = problem_with(resume_from_checkpoint)
            if problem is not None:
                raise CheckpointError(f"cannot resume from {resume_from_checkpoint}: {problem}.")
        return super().train(resume_from_checkpoint or None, trial, ignore_keys_for_eval)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """The bare student at the root, the methods' own tensors beside it; no pickled arguments."""
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        self.model.student.save_pretrained(folder)
        state = self.model.methods.state_dict()
        if state:
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / METHODS_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder, student = Path(resume_from_checkpoint), self.model.student
        saved = type(student).from_pretrained(folder)
        for what, theirs, ours in (
            ("items", saved.catalogue or saved.config.num_items, student.catalogue or student.config.num_items),
            ("users", saved.users, student.users),
        ):
            if theirs != ours:
                raise CheckpointError(
                    f"{folder} is about the {what} of {theirs}, the student about those of {ours}. Resume with the "
                    "data the run was started with."
                )
        student.load_state_dict(saved.state_dict())
        if self.model.methods.state_dict():
            self.model.methods.load_state_dict(load_file(folder / METHODS_FILE))

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save, seal with a manifest, and only then delete older checkpoints."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = str(self.args.output_dir)
            newest = os.path.join(folder, f"checkpoint-{self.state.global_step}")
            write_manifest(newest)
            rotate(folder, limit, keep=(newest, self.state.best_model_checkpoint))


class _EpochBegin(TrainerCallback):
    def __init__(self, trainer: DistillationTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.begin_epoch()

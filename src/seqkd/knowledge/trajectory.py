"""What a teacher knew at chosen moments of its own training, exported as knowledge when the training ends.

trajectory = Trajectory(split, "knowledge", "gnn")
DistillationTrainer(Distiller(teacher), arguments, train, valid, callbacks=[trajectory]).train()
knowledge = load_trajectories("knowledge")  # gnn@0, gnn@1, ...; the last is the converged model
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerState, TrainingArguments

from ..data.split import Split
from ..errors import ConfigError, KnowledgeError
from ..files.checkpoints import problem_with, write_manifest
from ..recommenders.recommender import RecommenderModel
from .export import export
from .knowledge import Knowledge

logger = logging.getLogger(__name__)
FAR = 0.15  # from a share that was asked for: a moment further away is another one
NUMBERED = re.compile(r"(?P<teacher>.+)@(?P<number>\d+)")


class Trajectory(TrainerCallback):
    """Keeps the bare weights of candidate moments during training and exports the chosen ones at its end.

    By default the moments are told by the metric that chooses the best model (NDCG of the valid part): what share of
    its final value the teacher had reached. The final value is known at the end only, so every evaluation that improved
    on all before is a candidate; nearest to a share counts. The last moment is the model with which the training ends:
    the best one with `load_best_model_at_end`. Two shares that meet the same candidate make one moment; of that, and of
    moments far from what was asked for, a warning tells: evaluate more often then.

    A run that was killed goes on: candidates made after the checkpoint from which it resumes are made again, an export
    continues where it stopped. Chosen candidates stay in `<folder>/moments` and can be exported again, longer say.

    Args:
        split: whose `part` the teacher is asked about.
        folder: gets the folders `<name>@0`, `<name>@1` ..., one for each moment, see `Knowledge.from_pretrained`.
        name: of the teacher.
        fractions: of the final metric, rising, above 0 and below 1; or
        steps: optimizer steps after which moments are taken, instead of fractions.
        tables, k, filter_seen: as in `export`, as are the other options: lists, never queries x items.

    Attributes:
        knowledge: by name, when the training has ended.
        shares: of the final metric, reached at the moments before the last.

    Raises:
        ConfigError: fractions or steps are not as described; when training begins, nothing evaluates the teacher.
    """

    def __init__(
        self,
        split: Split,
        folder: str | os.PathLike,
        name: str,
        *,
        fractions: Sequence[float] = (0.25, 0.5, 0.75),
        steps: Sequence[int] = (),
        part: str = "train",
        tables: Sequence[str] = ("query_topk", "query_seen_topk"),
        k: int = 100,
        filter_seen: bool = True,
        **options: Any,
    ) -> None:
        self.split, self.folder, self.name, self.part = split, Path(folder), name, part
        self.fractions, self.steps = tuple(fractions), tuple(steps)
        for moments, low, high in ((self.fractions, 0, 1), (self.steps, 0, float("inf"))):
            if any(b <= a for a, b in zip((low, *moments), (*moments, high), strict=True)):
                raise ConfigError(f"moments must rise and lie between {low} and {high}, got {moments}.")
        if not name or "@" in name or "/" in name:
            raise ConfigError(f"a teacher's name holds no '@', before which it stands, and no '/', got {name!r}.")
        self.options = {"tables": tuple(tables), "k": k, "filter_seen": filter_seen, **options}
        self.knowledge: dict[str, Knowledge] = {}
        self.shares: list[float] = []
        self.training = False  # an evaluation outside of training is no moment of it

    # ---- during training --------------------------------------------------------------------------------------

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        measured = args.eval_strategy != "no" and args.metric_for_best_model and args.greater_is_better
        if not (self.steps or measured):
            raise ConfigError(
                "moments by fraction want a metric that rises and is measured during training. Set eval_strategy="
                "'epoch' and metric_for_best_model='ndcg@10', or give steps=..."
            )
        self.training = True
        for step, folder in self._candidates().items() if state.is_world_process_zero else ():
            if step > state.global_step or problem_with(folder):
                shutil.rmtree(folder)  # of an earlier run, or of this one after what it is resumed from

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if not self.steps:
            metrics = metrics_by_step(args, state)
            now = metrics.pop(state.global_step, None)
            if now is not None and all(now > earlier for earlier in metrics.values()):
                self._keep(state, kwargs["model"].student)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.steps:
            self._keep(state, kwargs["model"].student)

    def _keep(self, state: TrainerState, student: RecommenderModel) -> None:
        if not (self.training and state.is_world_process_zero):
            return
        folder = self._moments / f"step-{state.global_step}"
        student.save_pretrained(folder)
        write_manifest(folder)

    # ---- at its end -------------------------------------------------------------------------------------------

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.training = False
        if not state.is_world_process_zero:
            return
        teacher, candidates = kwargs["model"].student, self._candidates()
        best = args.load_best_model_at_end and state.best_model_checkpoint is not None
        if self.steps:
            last = (state.best_global_step if best else None) or state.global_step  # of the model it ends with
            chosen = [step for step in self.steps if step in candidates and step < last]
        else:
            metrics = metrics_by_step(args, state)
            final = max(metrics.values(), default=0.0) if best else [0.0, *metrics.values()][-1]
            measured = {step: metrics[step] for step in sorted(candidates) if step in metrics}
            chosen = moments_of(measured, final, self.fractions)
            self.shares = [measured[step] / final for step in chosen]
        wanted = len(self.steps or self.fractions)
        far = any(min((abs(share - part) for share in self.shares), default=0) > FAR for part in self.fractions)
        if len(chosen) < wanted or far:
            shares = "" if self.steps else f", at {[round(share, 2) for share in self.shares]} of the final metric"
            logger.warning(
                "%s has %d moments before the last%s, not %d, at %s: candidates were after steps %s. Evaluate more "
                "often, or choose other moments.",
                self.name, len(chosen), shares, wanted, self.steps or self.fractions, sorted(candidates),
            )  # fmt: skip
        self.knowledge = {}
        for number, step in enumerate(chosen):
            loaded = type(teacher).from_pretrained(candidates[step]).to(teacher.device)
            self._export(loaded, number)
        self._export(teacher, len(chosen))
        for step in candidates.keys() - set(chosen):
            shutil.rmtree(candidates[step])
        for folder in self.folder.glob(f"{self.name}@*"):
            if folder.name not in self.knowledge:
                shutil.rmtree(folder)  # of an earlier run with more moments

    def _export(self, model: RecommenderModel, number: int) -> None:
        name = f"{self.name}@{number}"
        self.knowledge[name] = export(
            model,
            self.split.part(self.part),
            split=self.split,
            part=self.part,
            folder=self.folder / name,
            teacher=name,
            **self.options,
        )

    @property
    def _moments(self) -> Path:
        return self.folder / "moments" / self.name

    def _candidates(self) -> dict[int, Path]:
        """Folders of bare weights by step."""
        return {int(folder.name.removeprefix("step-")): folder for folder in self._moments.glob("step-*")}


def metrics_by_step(args: TrainingArguments, state: TrainerState) -> dict[int, float]:
    """The metric that chooses the best model, at each step at which it was measured."""
    name = f"eval_{str(args.metric_for_best_model).removeprefix('eval_')}"
    return {int(entry["step"]): entry[name] for entry in state.log_history if name in entry}


def moments_of(metrics: Mapping[int, float], final: float, fractions: Sequence[float]) -> list[int]:
    """The steps at which a metric came nearest to fractions of its final value, each once, in the order of time.

    Args:
        metrics: by step. What has reached the final value is no moment before it.
    """
    before = {step: metric for step, metric in metrics.items() if metric < final}
    if not before:
        return []
    return sorted({min(before, key=lambda step: abs(before[step] - part * final)) for part in fractions})


def load_trajectories(folder: str | os.PathLike) -> dict[str, Knowledge]:
    """The knowledge of all moments of all teachers in a folder, by name, teachers and moments in order.

    Raises:
        KnowledgeError: there is none, or one of them is unfinished or damaged.
    """
    found = [match for path in Path(folder).glob("*@*") if (match := NUMBERED.fullmatch(path.name))]
    if not found:
        raise KnowledgeError(
            f"{folder} has no folder like 'gnn@0'. Train a teacher with Trajectory(split, {folder!r})."
        )
    found.sort(key=lambda match: (match["teacher"], int(match["number"])))
    return {match[0]: Knowledge.from_pretrained(Path(folder, match[0])) for match in found}

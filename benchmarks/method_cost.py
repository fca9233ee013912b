"""What each distillation method adds to an epoch of BPR and to memory: CiteULike, a student 20 wide, one thread.

    taskset -c 1 python benchmarks/method_cost.py

Models, weights and settings are those of `citeulike.py`; what the teacher says must have been exported by it. The runs
take turns, step by step in the Trainer, so that a machine that slows down slows all of them; an epoch is its hook and
as many times the mean step as it has steps. Methods that anneal (DE, HTD) are measured in their first epoch, where all
experts answer for every entity, and in epoch 40 of 100, where one does. Memory is counted by torch's profiler: tensors
that stay when a step is over, and the most that a step holds beside them, both less what the student alone needs.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from citeulike import SETTINGS, WEIGHTS, Bench, parser
from journal import about
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

from seqkd import DistillationTrainer, Distiller
from seqkd.methods import METHODS
from seqkd.modules.experts import Experts, annealed

MB, WARM = 1e6, 5


class Run(NamedTuple):
    method: str = ""
    settings: dict = {}  # noqa: RUF012  beside those of `citeulike.py`
    epoch: int = 0  # at which the experts' temperature is taken
    part: float = 1.0  # of an epoch that is measured


RUNS = {
    "student alone": Run(),
    "rrd": Run("rrd"),
    "rrd, 128 queries": Run("rrd", {"max_queries": 128}),
    "ir_rrd": Run("ir_rrd", part=0.3),
    "ir_rrd, 2,000 items": Run("ir_rrd", {"max_items": 2000}),
    "ir_rrd, 1,000 items": Run("ir_rrd", {"max_items": 1000}),
    "ir_rrd, 128 queries, 256 items": Run("ir_rrd", {"max_queries": 128, "max_items": 256}),
    "de, first epoch": Run("de", part=0.1),
    "de": Run("de", epoch=40, part=0.3),
    "de, 256 entities": Run("de", {"max_entities": 256}, 40),
    "de, every 4th step": Run("de", {"every": 4}, 40),
    "de, 256 entities, every 2nd step": Run("de", {"max_entities": 256, "every": 2}, 40),
    "de, 256 entities, every 4th step": Run("de", {"max_entities": 256, "every": 4}, 40),
    "de, 256 entities, every 4th step, first epoch": Run("de", {"max_entities": 256, "every": 4}),
    "phr": Run("phr", part=0.08),
    "phr, 256 entities": Run("phr", {"max_entities": 256}, part=0.1),
    "ftd": Run("ftd"),
    "htd, first epoch": Run("htd", part=0.1),
    "htd": Run("htd", epoch=40, part=0.2),
    "htd, 256 entities": Run("htd", {"max_entities": 256}, 40, part=0.3),
    "rcekd": Run("rcekd", part=0.2),
    "full_ce": Run("full_ce", part=0.2),
    "full_ce, 64 queries": Run("full_ce", {"max_queries": 64}),
    "full_ce, catalogue": Run("full_ce", {"candidates": "catalogue"}, part=0.1),
}


class Clock(TrainerCallback):
    """Times the hook and the steps of a trainer, in wall and CPU seconds."""

    def __init__(self, trainer: DistillationTrainer, run: Run) -> None:
        self.trainer, self.run = trainer, run
        self.ticks: list[torch.Tensor] = []

    def on_epoch_begin(self, args, state, control, **kwargs):
        start = now()
        self.trainer.begin_epoch()  # once more: what it builds only once is there already
        self.hook = now() - start
        set_temperature(self.trainer.model, self.run)

    def on_step_end(self, args, state, control, **kwargs):
        self.ticks.append(now())

    def epoch(self, steps: int) -> list[float]:
        """Seconds of an epoch."""
        measured = self.ticks[WARM:]
        return (self.hook + (measured[-1] - measured[0]) / (len(measured) - 1) * steps).tolist()


def now() -> torch.Tensor:
    return torch.tensor([time.perf_counter(), time.process_time()], dtype=torch.float64)


def set_temperature(distiller: Distiller, run: Run) -> None:
    for module in distiller.modules():
        if isinstance(module, Experts):
            module.temperature = annealed(run.epoch, 100)


class Costs(Bench):
    """Seconds and memory of runs of the benchmark's student on its first teacher."""

    def __init__(self, folder: str) -> None:
        super().__init__(parser().parse_args([]), SETTINGS)
        self.folder, self.teacher = folder, self.knowledge("mf", 0)

    def trainer_of(self, run: Run) -> DistillationTrainer:
        names = [run.method] if run.method else []
        settings = {**SETTINGS.get(run.method, {}), **run.settings}
        methods = {name: METHODS[name](METHODS[name].config_class(**settings)) for name in names}
        weights, knowledge = {name: WEIGHTS.get(name, 1.0) for name in names}, {"teacher": self.teacher}
        distiller = Distiller(self.model("mf", "student", 0), methods, weights, knowledge if names else {})
        trainer = self.trainer(distiller, "mf", "method_cost", 0, self.options.epochs)
        trainer.args.output_dir, trainer.args.eval_strategy = self.folder, "no"
        return trainer

    def seconds(self, run: Run) -> list[float]:
        """Wall and CPU seconds of an epoch."""
        trainer = self.trainer_of(run)
        steps = trainer.total_steps // self.options.epochs
        trainer.args.max_steps = WARM + max(round(run.part * (steps - WARM)), 2)
        clock = Clock(trainer, run)
        trainer.add_callback(clock)
        trainer.train()
        return clock.epoch(steps)

    def memory(self, run: Run) -> tuple[float, float]:
        """MB that stay when two steps are done, and that a further one holds beside them at most."""
        gc.collect()  # what the run before left would count as given back
        with counted() as kept:
            trainer = self.trainer_of(run)
            trainer.create_optimizer_and_scheduler(1)
            trainer.begin_epoch()
            set_temperature(trainer.model, run)
            batches = iter(trainer.get_train_dataloader())
            for _ in range(2):
                step(trainer, batches)
            gc.collect()
        with counted() as held:
            for _ in range(1 + 3 * run.settings.get("every", 1)):  # one of them answers, almost surely
                step(trainer, batches)
        return sizes(kept)[-1], max(sizes(held))


def step(trainer: DistillationTrainer, batches) -> None:
    (batch,), _ = trainer.get_batch_samples(batches, 1, torch.device("cpu"))
    trainer.model(**batch)["loss"].backward()
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()


def counted() -> profile:
    return profile(activities=[ProfilerActivity.CPU], profile_memory=True)


def sizes(profiled: profile) -> list[float]:
    """MB that live after each allocation, beside what lived before the first."""
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return (torch.tensor(changes, dtype=torch.float64).cumsum(0) / MB).tolist()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--runs", nargs="*", default=[*RUNS], choices=[*RUNS])
    arguments.add_argument("--out", default="benchmarks/results/method_cost.json")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    started, runs = time.time(), {name: RUNS[name] for name in dict.fromkeys(["student alone", *options.runs])}
    clocks: dict[str, list[list[float]]] = {name: [] for name in runs}
    with tempfile.TemporaryDirectory() as folder:
        costs = Costs(folder)
        spent = {name: costs.memory(run) for name, run in runs.items()}
        for _ in range(options.rounds):
            for name, run in runs.items():
                clocks[name].append(costs.seconds(run))
    rows = {name: row(clocks[name], clocks["student alone"]) for name in runs}
    for name, (kept, held) in spent.items():
        alone = spent["student alone"]
        rows[name] |= {"kept_mb": round(kept - alone[0], 1), "step_mb": round(held - alone[1], 1)}
    facts = {**about(started), "threads": 1, "load_average_after": os.getloadavg(), "rounds": options.rounds}
    student = {"kept_mb": round(spent["student alone"][0], 1), "step_mb": round(spent["student alone"][1], 1)}
    text = json.dumps({"about": facts, "student alone": student, "epochs": rows}, indent=1)
    Path(options.out).write_text(text + "\n", encoding="utf-8")
    for name, found in rows.items():
        spread = "-".join(f"{ratio:.2f}" for ratio in found["ratio_range"])
        print(
            f"{name:46s} x{found['ratio']:.2f} ({spread}; CPU x{found['ratio_of_min_cpu']:.2f})"
            f"   + {found['kept_mb']} MB kept, {found['step_mb']} MB in a step"
        )


def row(times: list[list[float]], alone: list[list[float]]) -> dict:
    """Of a method and of the student alone, `[wall, CPU]` seconds of each round."""
    ratios = [mine[0] / base[0] for mine, base in zip(times, alone, strict=True)]
    return {
        "wall_s": [round(wall, 3) for wall, _ in times],
        "cpu_s": [round(cpu, 3) for _, cpu in times],
        "ratio": round(statistics.median(ratios), 3),
        "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "ratio_of_min_cpu": round(min(cpu for _, cpu in times) / min(cpu for _, cpu in alone), 3),
    }


if __name__ == "__main__":
    main()

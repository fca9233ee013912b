"""Six unlike teachers and one small MF: alone, taught by the consensus of the six, and by HetComp.

    python benchmarks/heterogeneous_teachers.py --data ml100k --seeds 0 1 2    # first: teachers and their trajectories
    python benchmarks/hetcomp.py --data ml100k --seeds 0 1 2 --width 6
    python benchmarks/hetcomp_report.py

Data and protocol are in hetcomp_data.py. Seed 0 tries the settings in `GRID`, of the student alone as many as of any
method; the other seeds, and variants, have what was best on validation. A seed has teachers, consensus and students of
its own, unless `--teachers` names the seed whose teachers teach all (CiteULike, where six of them take an hour).
A run ends when Recall@50 on validation has not risen for `--patience` evaluations, and its best moment counts.
Results are appended to benchmarks/results/hetcomp/<data>.jsonl; what stands there is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import cache, cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch
from hetcomp_data import FILES, KS, PROTOCOL, metrics_of_lists
from heterogeneous_teachers import KINDS, OUTPUT, RESULTS, Bench
from journal import about

from seqkd import Distiller, Knowledge, by_rank, export, load_trajectories, rank_consensus, rank_targets
from seqkd.knowledge.ensemble import consensus
from seqkd.knowledge.interview import best_items
from seqkd.methods import METHODS
from seqkd.recommenders.user_recommender import UserRecommender

TRAINING = {"learning_rate": 5e-3, "decay": 1e-2, "every": 10}
# by run: the method, its settings, and what is tried
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "alone": ("", {}),
    "rrd": ("rrd", {"list_length": 100}),
    "dcd": ("dcd", {}),
    "full_ce": ("full_ce", {}),
    "full_ce, observed": ("full_ce", {}),  # lists hold what users have, as they do in HetComp's loss
    "hetcomp": ("hetcomp", {}),
    "hetcomp, power": ("hetcomp", {"consensus": "power"}),  # ours
    "hetcomp, sampled": ("hetcomp", {"max_queries": 64, "max_items": 2048}),  # ours: an epoch takes twice a plain one
    "hetcomp, no curriculum": ("hetcomp", {"curriculum": False}),
    "hetcomp, no adaptive transfer": ("hetcomp", {"transfer": "ranking"}),
}
GRID: dict[str, dict[str, list[float]]] = {
    "alone": {"decay": [1e-3, 1e-2, 1e-1]},
    "rrd": {"weight": [1e-3, 1e-2, 1e-1, 1.0]},
    "dcd": {"weight": [1e-4, 1e-3, 1e-2, 1e-1]},
    "full_ce": {"weight": [1.0, 10.0, 100.0, 1000.0], "scale": [10.0, 50.0]},
    # alone in the loss a weight is none under Adam, but against decay: in the paper's units these are 1e-5 to 1e-2
    "hetcomp": {"weight": [7.5], "decay": [1e-2, 1.0, 10.0]},
}
LAWS = ("exponential", "power")  # of importance, by which the six agree: what is better on validation teaches
CATALOGUE = ("full_ce", "hetcomp")  # these score the whole catalogue


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="citeulike", choices=list(FILES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--grid", type=json.loads, default={}, metavar="JSON", help="by run, instead of GRID's")
    parser.add_argument("--teachers", type=int, default=None, help="seed of the teachers of all students")
    parser.add_argument("--width", type=int, default=20, help="of the student")
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--patience", type=int, default=5, help="evaluations without a better one")
    parser.add_argument("--max_queries", type=int, default=None, help="of full_ce and hetcomp, see their config")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Students(options)
    for seed in options.seeds:
        bench.consensus_of(bench.taught_by(seed))
        for run in options.runs:
            if seed == 0 and run in GRID:
                grid = options.grid.get(run, GRID[run])
                points = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
            else:  # a variant has the settings of the whole
                points = [bench.best(run.split(",")[0])]
            for point in points:
                bench.teach(run, seed, point)


class Students(Bench):
    """Runs by name, settings and seed; teachers are those of `heterogeneous_teachers.py`."""

    @cached_property
    def path(self) -> Path:
        return RESULTS / f"{self.options.data}.jsonl"

    @property
    def noted(self) -> list[dict[str, Any]]:
        return self.entries_of(self.path)

    def best(self, run: str) -> dict[str, Any]:
        """The settings that were best on validation with seed 0."""
        found = [entry for entry in self.noted if (entry["run"], entry["seed"]) == (run, 0)]
        return max(found, key=lambda entry: entry["metrics"]["valid"]["recall@50"])["point"]

    def taught_by(self, seed: int) -> int:
        """The seed of a student's teachers."""
        return seed if self.options.teachers is None else self.options.teachers

    def checkpoints(self, seed: int) -> dict[str, Knowledge]:
        """All moments of all teachers, `mf@0` to `itemae@3`."""
        return load_trajectories(OUTPUT / self.options.data / "knowledge" / str(seed))

    def consensus_of(self, seed: int) -> None:
        """How good the ensemble is, by the lists on which the converged teachers agree, of each law of importance."""
        if ("ensemble", seed) in {(entry["run"], entry["seed"]) for entry in self.noted}:
            return
        started, lists = time.time(), {"valid": [], "test": []}
        for kind in KINDS:
            model = self.teacher(kind, seed)
            for part, rows in (("valid", self.data.valid), ("test", self.data.test)):
                lists[part].append(best_items(model, rows, 200))
        for law in LAWS:
            metrics = {}
            for part, rows in (("valid", self.data.valid), ("test", self.data.test)):
                agreed, _ = consensus(lists[part], torch.ones(len(lists[part])), importance=law, k=max(KS))
                metrics[part] = metrics_of_lists(agreed, rows)
            self.note(
                {"run": "ensemble", "seed": seed, "point": {"law": law}, "metrics": metrics, "about": about(started)}
            )

    def teach(self, run: str, seed: int, point: dict[str, Any]) -> None:
        """Train, measure and note one student, unless it is noted."""
        if (run, seed, point) in [(entry["run"], entry["seed"], entry["point"]) for entry in self.noted]:
            return
        started, teachers = time.time(), self.taught_by(seed)
        student = self.model("mf", {"hidden_size": self.options.width}, seed)
        name, settings = RUNS[run]
        if name in CATALOGUE and self.options.max_queries:
            settings = {"max_queries": self.options.max_queries, **settings}
        distiller = Distiller(student)
        if name:
            method = METHODS[name](METHODS[name].config_class(**settings))
            if name == "hetcomp":  # which has the observed items from the teachers, too
                label_weight, knowledge = 0.0, self.checkpoints(teachers)
            else:  # of the scores, full_ce alone reads more than their order
                ranked = by_rank(self.ensemble(teachers, run == "full_ce, observed"), point.get("scale", 10.0))
                label_weight, knowledge = 1.0, {"ensemble": ranked}
            distiller = Distiller(student, {name: method}, {name: point["weight"]}, knowledge, label_weight)
        training = {**TRAINING, **{key: value for key, value in point.items() if key in TRAINING}}
        folder = OUTPUT / self.options.data / "runs" / f"{run}-{seed}"  # its own: two may run at a time
        trainer = self.trainer(distiller, training, seed, folder)
        trainer.train()
        seconds = time.time() - started
        parts = {"valid": self.data.valid, "test": self.data.test}
        history = [entry for entry in trainer.state.log_history if "eval_recall@50" in entry]
        best = max(history, key=lambda entry: entry["eval_recall@50"])
        entry = {
            "run": run,
            "seed": seed,
            "teachers": teachers,
            "point": point,
            "settings": settings,
            "training": training,
            "width": self.options.width,
            "protocol": PROTOCOL,
            "metrics": {name: rank_targets(student, part, depth=max(KS)).metrics(KS) for name, part in parts.items()},
            "best_epoch": round(best["epoch"]),
            "epochs": round(trainer.state.epoch or 0),
            "trace": {round(found["epoch"]): round(found["eval_recall@50"], 5) for found in history},
            "law": self.best("ensemble")["law"],
            "progress": {
                round(found["epoch"]): found["hetcomp/progress"]
                for found in trainer.state.log_history
                if "hetcomp/progress" in found and round(found["epoch"]) % TRAINING["every"] == 0
            },
            "seconds_training": round(seconds, 1),
            "about": about(started),
        }
        self.note(entry)

    @cache  # noqa: B019  there is one bench
    def ensemble(self, seed: int, observed: bool = False) -> Knowledge:
        """The consensus of the converged teachers, by the law that is better with those of seed 0.

        Args:
            observed: what users have is ranked, too.
        """
        tables = ("query_topk",)
        asked = {"split": self.data.split, "part": "train", "tables": tables, "k": 500, "filter_seen": not observed}
        told = {kind: export(self.teacher(kind, seed), self.data.split.train, **asked) for kind in KINDS}
        return rank_consensus(told, importance=self.best("ensemble")["law"], k=500)

    def teacher(self, kind: str, seed: int) -> UserRecommender:
        return KINDS[kind][1].from_pretrained(OUTPUT / self.options.data / "teachers" / f"{kind}-{seed}").eval()

    def note(self, entry: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        found = {part: round(told["recall@50"], 4) for part, told in entry["metrics"].items()}
        settings = " ".join(f"{name}={value}" for name, value in entry["point"].items())
        print(f"{self.options.data} {entry['seed']} {entry['run']} {settings}: Recall@50 {found}", flush=True)


if __name__ == "__main__":
    main()

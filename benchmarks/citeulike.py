"""The table of Topology Distillation on CiteULike: a teacher 200 wide, a student 20 wide, and what each method adds.

    python benchmarks/citeulike.py --seeds 0 1 2                           # MF: teacher, student alone, every method
    python benchmarks/citeulike.py --models lightgcn --runs teacher student de htd
    python benchmarks/citeulike.py --runs rrd --method rrd='{"interesting": 100}' --weight rrd=0.01 --label K=100

The split of the paper's repository (leave-one-out, not temporal), full ranking without what a user has, BPR with one
negative, Adam with weight decay on the loss, 100 epochs, the last one counts (Kang et al., KDD'21, and its code). Test
is looked at after every ten epochs for the trace alone. Results are appended to
benchmarks/results/citeulike/<model>.jsonl, and what is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from coupled_adam import coupled_adam
from journal import about

from seqkd import (
    DistillationArguments,
    DistillationTrainer,
    Distiller,
    Knowledge,
    LightGCNConfig,
    LightGCNModel,
    MFConfig,
    MFModel,
    SequenceDataset,
    count_items,
    edges_of,
    export,
    load_interactions,
    preset,
)
from seqkd.methods import METHODS
from seqkd.recommenders.user_recommender import UserRecommender

DATA = "../shared/data/citeulike/topology_split.parquet"
FOLDER, OUTPUT = Path("benchmarks/results/citeulike"), Path("outputs/citeulike")
WIDTHS = {"teacher": 200, "student": 20}
EVERY = 10  # epochs between two looks at test, for the trace
TABLES = ("query_topk", "query_embeddings", "item_embeddings", "item_topk")
DECAY = {"mf": 1e-3, "lightgcn": 1e-3}  # of the authors, on a loss summed over the batch
# of LightGCN nothing is known but its table; chosen for the student alone (lightgcn_search.jsonl)
LEARNING_RATE = {"mf": 1e-3, "lightgcn": 5e-3}
LIGHTGCN = {"num_layers": 2, "reg_weight": 0.0}
# each paper's lambda turned into a weight on our means (docs/papers.md)
WEIGHTS = {"de": 0.01, "rrd": 0.85e-3, "ftd": 8.0, "htd": 1e-3, "ir_rrd": 0.85e-3, "phr": 0.01}
SETTINGS: dict[str, dict[str, Any]] = {"de": {"anneal_epochs": 100}}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mf"], choices=["mf", "lightgcn"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--runs", nargs="*", default=["teacher", "student", *WEIGHTS], help="names, or several methods as rrd+htd"
    )
    parser.add_argument("--method", nargs="*", default=[], metavar="NAME=JSON", help="settings of a method")
    parser.add_argument("--weight", nargs="*", default=[], metavar="NAME=NUMBER")
    parser.add_argument("--student", type=json.loads, default={}, metavar="JSON", help="its configuration")
    parser.add_argument("--label_weight", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--file", default="", help="<model>_<file>.jsonl instead of <model>.jsonl")
    parser.add_argument("--label", default="", help="appended to the name of the run, for a variant of it")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument(
        "--teachers", nargs="*", default=[], choices=["mf", "lightgcn"], help="default: of the same kind"
    )
    parser.add_argument("--teacher_epochs", type=int, default=100)
    parser.add_argument("--learning_rate", type=float, default=None)
    parser.add_argument("--decay", type=float, default=None)
    return parser


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(1)
    settings = {
        **SETTINGS,
        **{name: json.loads(value) for name, value in (one.split("=", 1) for one in options.method)},
    }
    chosen = {name: float(value) for name, value in (one.split("=", 1) for one in options.weight)}
    bench = Bench(options, settings)
    for kind in options.models:
        for seed in options.seeds:
            for run in options.runs:
                names = [] if run in ("teacher", "student") else run.split("+")
                bench.run(kind, run, {name: chosen.get(name, WEIGHTS.get(name, 1.0)) for name in names}, seed)


class Bench:
    """Runs by kind of model, name and seed."""

    def __init__(self, options: argparse.Namespace, settings: dict[str, dict[str, Any]]) -> None:
        self.options, self.settings = options, settings
        self.split = preset(load_interactions(DATA, domain="citeulike"), queries="users")
        self.parts = {
            name: SequenceDataset(self.split.part(name), len(self.split.catalogue), self.split.users)
            for name in ("train", "valid", "test")
        }

    def model(self, kind: str, role: str, seed: int) -> UserRecommender:
        """Untrained, with the authors' initialisation."""
        torch.manual_seed(seed)
        sizes = {"num_items": len(self.split.catalogue), "num_users": len(self.split.users)}
        sizes |= {"hidden_size": WIDTHS[role], **(self.options.student if role == "student" else {})}
        if kind == "mf":
            model: UserRecommender = MFModel(MFConfig(**sizes))
        else:
            model = LightGCNModel(LightGCNConfig(**{**LIGHTGCN, **sizes}), edges_of(self.parts["train"]))
        model.set_catalogue(self.split.catalogue, count_items(self.split.train, len(self.split.catalogue)))
        model.set_users(self.split.users)
        return model

    def knowledge(self, kind: str, seed: int) -> Knowledge:
        """What the teacher of this seed says, exported once."""
        folder = OUTPUT / "knowledge" / f"{kind}-{seed}-{self.options.teacher_epochs}"
        if not (folder / "knowledge.json").exists():
            if not (self.teacher_folder(kind, seed) / "config.json").exists():
                self.run(kind, "teacher", {}, seed, again=True)  # only its result came with the repository, or nothing
            teacher = {"mf": MFModel, "lightgcn": LightGCNModel}[kind].from_pretrained(self.teacher_folder(kind, seed))
            told = {"split": self.split, "part": "train", "tables": TABLES, "k": 500, "filter_seen": True}
            export(teacher.eval(), self.split.train, folder=folder, **told)
        return Knowledge.from_pretrained(folder)

    def teacher_folder(self, kind: str, seed: int) -> Path:
        return OUTPUT / "teachers" / f"{kind}-{seed}-{self.options.teacher_epochs}"

    def run(self, kind: str, run: str, weights: dict[str, float], seed: int, again: bool = False) -> None:
        """Train, measure and note one model, unless it is there; `again` trains what is noted, too."""
        options, label = (
            self.options,
            run + (f" {self.options.label}" if run != "teacher" and self.options.label else ""),
        )
        path = FOLDER / (f"{kind}_{options.file}.jsonl" if options.file and run != "teacher" else f"{kind}.jsonl")
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        noted = (label, seed) in {(entry["run"], entry["seed"]) for entry in map(json.loads, lines)}
        if noted and not again:
            return
        started = time.time()
        student = self.model(kind, "teacher" if run == "teacher" else "student", seed)
        used = {name: self.settings.get(name, {}) for name in weights}
        methods = {name: METHODS[name](METHODS[name].config_class(**settings)) for name, settings in used.items()}
        teachers = (options.teachers or [kind]) if methods else []
        knowledge = {teacher: self.knowledge(teacher, seed) for teacher in teachers}
        distiller = Distiller(student, methods, weights, knowledge, options.label_weight if methods else 1.0)
        epochs = options.teacher_epochs if run == "teacher" else options.epochs
        trainer = self.trainer(distiller, kind, f"{kind}-{label}-{seed}", seed, epochs)
        begun = time.time()
        trainer.train()
        seconds = time.time() - begun
        metrics = {part: trainer.evaluate(self.parts[part], metric_key_prefix=part) for part in ("valid", "test")}
        if run == "teacher":
            student.save_pretrained(self.teacher_folder(kind, seed))
        if noted:
            return
        history = trainer.state.log_history
        entry = {
            "model": kind,
            "run": label,
            "seed": seed,
            "width": student.config.hidden_size,
            "weights": weights,
            "teachers": teachers,
            "settings": used,
            "student": {} if run == "teacher" else options.student,
            "label_weight": options.label_weight if methods else 1.0,
            "batch": options.batch,
            "epochs": epochs,
            "learning_rate": options.learning_rate or LEARNING_RATE[kind],
            "decay": options.decay if options.decay is not None else DECAY[kind],
            "protocol": "loo by the data's split, full catalogue, masked",
            "metrics": {part: strip(told, f"{part}_") for part, told in metrics.items()},
            "trace": {round(e["epoch"]): e["eval_recall@50"] for e in history if "eval_recall@50" in e},
            "seconds_training": round(seconds, 1),
            "about": about(started),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        found = {part: round(told[f"{part}_recall@50"], 4) for part, told in metrics.items()}
        print(f"{kind} {seed} {label}: Recall@50 {found}, {seconds:.0f} s", flush=True)

    def trainer(self, distiller: Distiller, kind: str, name: str, seed: int, epochs: int) -> DistillationTrainer:
        options = self.options
        decay = options.decay if options.decay is not None else DECAY[kind]
        optimizers = coupled_adam(distiller, options.learning_rate or LEARNING_RATE[kind], decay, options.batch)
        steps = -(-sum(len(row["item_ids"]) for row in self.split.train) // options.batch)
        arguments = DistillationArguments(
            output_dir=str(OUTPUT / "runs" / name),
            num_train_epochs=epochs,
            per_device_train_batch_size=options.batch,
            eval_strategy="steps",
            eval_steps=EVERY * steps,
            save_strategy="no",
            logging_strategy="epoch",
            report_to=[],
            metric_ks=(10, 20, 50),
            seed=seed,
            use_cpu=True,
            disable_tqdm=True,
        )
        return DistillationTrainer(distiller, arguments, self.parts["train"], self.parts["test"], optimizers=optimizers)


def strip(metrics: dict[str, float], prefix: str) -> dict[str, float]:
    """The metrics that begin with it, without it."""
    return {name.removeprefix(prefix): value for name, value in metrics.items() if name.startswith(prefix)}


if __name__ == "__main__":
    main()

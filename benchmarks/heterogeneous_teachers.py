"""The six unlike teachers of HetComp, any of them by one command, each tuned and stopped by validation.

    python benchmarks/heterogeneous_teachers.py --data citeulike --search            # its grid, seed 0, recorded
    python benchmarks/heterogeneous_teachers.py --data citeulike --seeds 0 1 2       # all six, with what was best
    python benchmarks/heterogeneous_teachers.py --data ml100k --kinds multvae --set hidden_size=200 --label small

Kinds: MF, metric learning (CML), a deep network (NeuMF), a graph (LightGCN), a user autoencoder (Mult-VAE) and an item
autoencoder. Data and protocol are in hetcomp_data.py. A run ends when Recall@50 on validation has not risen for
`--patience` evaluations, and its best moment counts. Results are appended to
benchmarks/results/hetcomp/<data>_teachers.jsonl (of a search <data>_search.jsonl), what stands there is not run again;
weights go to outputs/hetcomp/<data>/teachers/<kind>-<seed>, and what a teacher knew at four moments of its training to
outputs/hetcomp/<data>/knowledge/<seed>/<kind>@0 to <kind>@3. While a teacher learns fast it is looked at more often,
for moments at a quarter, a half and three quarters of its final Recall@50.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from coupled_adam import coupled_adam
from hetcomp_data import FILES, KS, PROTOCOL, HetCompData
from journal import about
from transformers import EarlyStoppingCallback, TrainerCallback

from seqkd import (
    CMLConfig,
    CMLModel,
    DistillationArguments,
    DistillationTrainer,
    Distiller,
    ItemAEConfig,
    ItemAEModel,
    LightGCNConfig,
    LightGCNModel,
    MFConfig,
    MFModel,
    MultVAEConfig,
    MultVAEModel,
    NeuMFConfig,
    NeuMFModel,
    Trajectory,
    count_items,
    edges_of,
    rank_targets,
)
from seqkd.recommenders.user_recommender import UserRecommender

RESULTS, OUTPUT = Path("benchmarks/results/hetcomp"), Path("outputs/hetcomp")
BATCH = 1024
KINDS: dict[str, tuple[type, type]] = {
    "mf": (MFConfig, MFModel),
    "cml": (CMLConfig, CMLModel),
    "neumf": (NeuMFConfig, NeuMFModel),
    "lightgcn": (LightGCNConfig, LightGCNModel),
    "multvae": (MultVAEConfig, MultVAEModel),
    "itemae": (ItemAEConfig, ItemAEModel),
}
READ_EDGES = ("lightgcn", "multvae", "itemae")
# `learning_rate`, `decay` (on a loss summed over the batch, as the papers have it) and `every` (epochs between two
# evaluations) are of the training, the rest of the configuration.
DEFAULTS: dict[str, dict[str, Any]] = {
    "mf": {"hidden_size": 64, "learning_rate": 1e-3, "decay": 1e-3, "every": 5},
    "cml": {"hidden_size": 64, "learning_rate": 5e-3, "decay": 0.0, "every": 5},
    # a small tower, seldom asked: it runs on every pair of the catalogue and a user, some 30 MFLOP for each user
    "neumf": {
        "hidden_size": 64,
        "mlp_hidden_sizes": [32, 16, 8],
        "learning_rate": 1e-3,
        "decay": 1e-3,
        "every": 10,
    },
    "lightgcn": {"hidden_size": 64, "learning_rate": 1e-3, "decay": 1e-3, "reg_weight": 0.0, "every": 5},
    "multvae": {"hidden_size": 200, "latent_size": 64, "learning_rate": 1e-3, "decay": 0.0, "every": 1},
    "itemae": {"hidden_size": 200, "learning_rate": 1e-3, "decay": 0.0, "every": 1},
}
GRID: dict[str, dict[str, list[Any]]] = {
    "mf": {"decay": [1e-3, 1e-2]},
    "cml": {"margin": [0.5, 1.0, 2.0], "learning_rate": [1e-3, 5e-3]},
    "neumf": {"decay": [1e-3, 1e-2], "dropout_prob": [0.0, 0.5]},
    "lightgcn": {"decay": [1e-4, 1e-3]},
    "multvae": {"kl_weight": [0.2, 0.5], "dropout_prob": [0.5, 0.7]},
    "itemae": {"dropout_prob": [0.5, 0.8]},
}
TRAINING = ("learning_rate", "decay", "every")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="citeulike", choices=list(FILES))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--search", action="store_true", help="run the grid of each kind instead")
    parser.add_argument("--points", type=json.loads, default={}, metavar="JSON", help="of the search, not its grid")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="settings other than the best known")
    parser.add_argument("--label", default="", help="of a run with other settings; part of its name and folder")
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--patience", type=int, default=5, help="evaluations without a better one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(options)
    given = {name: json.loads(value) for name, value in (one.split("=", 1) for one in options.set)}
    for kind in options.kinds:
        for seed in options.seeds:
            if options.search:
                grid = options.points or GRID[kind]
                for values in product(*grid.values()):
                    point = dict(zip(grid, values, strict=True))
                    bench.run(kind, seed, json.dumps(point), {**DEFAULTS[kind], **given, **point}, "search")
            else:
                bench.run(kind, seed, options.label, {**bench.best(kind), **given}, "teachers")


class Looks(EarlyStoppingCallback):
    """Further looks at validation, each a quarter later than the last, until regular ones are as close: the first of
    them comes after most of what a teacher learns. Patience counts regular looks alone."""

    def __init__(self, patience: int, regular: int) -> None:
        super().__init__(patience)
        self.regular, self.next = regular, 4  # steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.next:
            control.should_evaluate = control.should_save = True
            later = max(self.next * 5 // 4, self.next + 1)
            self.next = later if later - self.next < self.regular else 0

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self.regular == 0:
            super().on_evaluate(args, state, control, **kwargs)


class Bench:
    """Runs by kind of model, seed and label."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.data = options, HetCompData.load(options.data)

    def entries(self, file: str) -> list[dict[str, Any]]:
        """What is noted in `<data>_<file>.jsonl`."""
        return self.entries_of(RESULTS / f"{self.options.data}_{file}.jsonl")

    @staticmethod
    def entries_of(path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def best(self, kind: str) -> dict[str, Any]:
        """The settings of the search that were best on validation, else the defaults."""
        found = [entry for entry in self.entries("search") if entry["kind"] == kind]
        if not found:
            return DEFAULTS[kind]
        return max(found, key=lambda entry: entry["metrics"]["valid"]["recall@50"])["settings"]

    def model(self, kind: str, settings: dict[str, Any], seed: int) -> UserRecommender:
        """Untrained."""
        torch.manual_seed(seed)
        config_class, model_class = KINDS[kind]
        split = self.data.split
        chosen = {name: value for name, value in settings.items() if name not in TRAINING}
        config = config_class(num_items=len(split.catalogue), num_users=len(split.users), **chosen)
        model = model_class(config, edges_of(self.data.train)) if kind in READ_EDGES else model_class(config)
        model.set_catalogue(split.catalogue, count_items(split.train, len(split.catalogue)))
        model.set_users(split.users)
        return model

    def run(self, kind: str, seed: int, label: str, settings: dict[str, Any], file: str) -> None:
        """Train, measure and note one model, unless it is noted."""
        noted = {(entry["kind"], entry["seed"], entry["label"]) for entry in self.entries(file)}
        folder = OUTPUT / self.options.data / "teachers" / f"{kind}-{seed}{'-' * bool(label)}{label}"
        weights = file == "search" or (folder / "config.json").exists()
        if (kind, seed, label) in noted and weights:  # a teacher is trained again where only its result is here
            return
        started = time.time()
        model = self.model(kind, settings, seed)
        told = OUTPUT / self.options.data / "knowledge" / str(seed)
        moments = [Trajectory(self.data.split, told, kind, k=200)] if (file, label) == ("teachers", "") else []
        runs = OUTPUT / self.options.data / "runs" / f"{file}-{kind}-{seed}"
        trainer = self.trainer(Distiller(model), settings, seed, runs, moments)
        trainer.train()
        seconds = time.time() - started
        parts = {"valid": self.data.valid, "test": self.data.test}
        metrics = {name: rank_targets(model, part, depth=max(KS)).metrics(KS) for name, part in parts.items()}
        if file == "teachers":
            model.save_pretrained(folder)
        history = [entry for entry in trainer.state.log_history if "eval_recall@50" in entry]
        entry = {
            "kind": kind,
            "seed": seed,
            "label": label,
            "settings": settings,
            "protocol": PROTOCOL,
            "split": self.data.split.fingerprint[:12],
            "metrics": metrics,
            "best_epoch": round(max(history, key=lambda found: found["eval_recall@50"])["epoch"], 2),
            "epochs": round(trainer.state.epoch or 0),
            "trace": {round(found["epoch"], 2): round(found["eval_recall@50"], 5) for found in history},
            "moments": [round(share, 3) for one in moments for share in one.shares],
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds_training": round(seconds, 1),
            "about": about(started),
        }
        if (kind, seed, label) not in noted:
            RESULTS.mkdir(parents=True, exist_ok=True)
            with open(RESULTS / f"{self.options.data}_{file}.jsonl", "a", encoding="utf-8") as lines:
                lines.write(json.dumps(entry) + "\n")
        found = {part: {name: round(value, 4) for name, value in told.items()} for part, told in metrics.items()}
        print(
            f"{self.options.data} {kind} {seed} {label}: {found}, {entry['epochs']} epochs, {seconds:.0f} s", flush=True
        )

    def trainer(
        self,
        distiller: Distiller,
        settings: dict[str, Any],
        seed: int,
        folder: Path,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> DistillationTrainer:
        optimizers = coupled_adam(distiller, settings["learning_rate"], settings["decay"], BATCH)
        epoch = -(-int(distiller.student.item_counts.sum()) // BATCH)  # steps
        patience, regular = self.options.patience, settings["every"] * epoch
        stopping = Looks(patience, regular) if callbacks else EarlyStoppingCallback(patience)
        arguments = DistillationArguments(
            output_dir=str(folder),
            num_train_epochs=self.options.epochs,
            per_device_train_batch_size=BATCH,
            per_device_eval_batch_size=128,
            eval_strategy="steps",
            save_strategy="steps",
            eval_steps=regular,
            save_steps=regular,
            save_total_limit=1,
            save_only_model=True,
            load_best_model_at_end=True,
            metric_for_best_model="recall@50",
            metric_ks=KS,
            logging_strategy="epoch",
            report_to=[],
            seed=seed,
            use_cpu=True,
            disable_tqdm=True,
        )
        return DistillationTrainer(
            distiller,
            arguments,
            self.data.train,
            self.data.valid,
            callbacks=[stopping, *callbacks],
            optimizers=optimizers,
        )


if __name__ == "__main__":
    main()

"""ConCF on CiteULike: each objective alone, six heads without consensus, and with it.

    python benchmarks/concf.py --seeds 0 1 2                                # every run
    python benchmarks/concf.py --runs concf --set '{"alpha": 0.01}' --label alpha=0.01

Users and items with ten interactions at least (one pass, so some users are left with fewer), 60/20/20 of each user at
random, full ranking without what a user has, Recall and NDCG at 50 as means over users (spec 7.4). Our file has left
out users with fewer than five, so fewer items reach ten: 2,702 users, 2,749 items, 50,241 interactions where the
authors have 2,735, 3,024 and 52,133. Adam with weight
decay on a loss summed over the batch, 200 epochs, learning rate 0.01, as in the authors' code; the moment at which
Recall@50 of the answering head is best on validation counts, looked at every ten epochs. Results are appended to
benchmarks/results/concf/citeulike.jsonl: test and validation for every head, the head that validation would keep, and
the ensemble of heads. What is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from coupled_adam import coupled_adam
from hetcomp_data import KS, PROTOCOL, HetCompData, metrics_of_lists
from journal import about
from transformers import TrainerCallback

from seqkd import (
    ConCF,
    ConCFConfig,
    ConCFMethodConfig,
    ConCFModel,
    DistillationArguments,
    DistillationTrainer,
    Distiller,
    best_head,
    count_items,
)
from seqkd.evaluation.head_selection import consensus_topk, head_metrics
from seqkd.models.concf.configuration_concf import HEADS

FOLDER, OUTPUT = Path("benchmarks/results/concf"), Path("outputs/concf")
AT_LEAST, BATCH, EVERY = 10, 1024, 10
DECAY = 1e-5  # of the authors, on a loss summed over the batch
METHODS = {
    "concf": {},
    "balance": {"alpha": 0.0},  # several heads, but nothing that they learn from each other
    "release": {"deviation_scale": 100.0, "untaught": ("item_multinomial",)},
}
RUNS = (*HEADS[:5], *METHODS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=RUNS)
    parser.add_argument("--set", default="{}", metavar="JSON", help="settings of the method that differ")
    parser.add_argument("--label", default="", help="appended to the name of the run, for a variant of it")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--decay", type=float, default=DECAY)
    options = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(options)
    for seed in options.seeds:
        for run in options.runs:
            bench.run(run, seed)


class Bench:
    """Runs by name and seed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.settings = options, json.loads(options.set)
        data = HetCompData.load("citeulike", of_user=AT_LEAST, of_item=AT_LEAST)
        self.split, self.train = data.split, data.train
        self.parts = {"valid": data.valid, "test": data.test}

    def run(self, run: str, seed: int) -> None:
        """Train, measure and note one model, unless it is there."""
        options, label = self.options, f"{run} {self.options.label}".strip()
        path = FOLDER / "citeulike.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if (label, seed) in {(entry["run"], entry["seed"]) for entry in map(json.loads, lines)}:
            return
        started = time.time()
        model = self.model(HEADS if run in METHODS else (run,), seed)
        settings = {**METHODS.get(run, {}), **self.settings} if run in METHODS else {}
        methods = {"concf": ConCF(ConCFMethodConfig(**settings))} if run in METHODS else {}
        trainer = self.trainer(Distiller(model, methods), f"{label}-{seed}", seed)
        best = Best(trainer)
        trainer.add_callback(best)
        trainer.train()
        seconds = time.time() - started
        model.load_state_dict(best.state)
        model.eval()
        metrics = {part: head_metrics(model, rows, ks=KS) for part, rows in self.parts.items()}
        entry = {
            "run": label,
            "seed": seed,
            "split": self.split.fingerprint[:12],
            "settings": settings,
            "epochs": options.epochs,
            "learning_rate": options.learning_rate,
            "decay": options.decay,
            "protocol": PROTOCOL,
            "head": best_head(model, self.parts["valid"], metric="recall@50"),
            "metrics": metrics,
            "ensemble": {
                part: metrics_of_lists(consensus_topk(model, rows, max(KS)), rows) for part, rows in self.parts.items()
            },
            "weights": dict(zip(model.head_names, model.head_weights.tolist(), strict=True)),
            "best_epoch": best.epoch,
            "trace": {
                round(e["epoch"]): e["eval_recall@50"] for e in trainer.state.log_history if "eval_recall@50" in e
            },
            "seconds_training": round(seconds, 1),
            "about": about(started),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        found = {head: round(told["recall@50"], 4) for head, told in metrics["test"].items()}
        print(f"{seed} {label}: Recall@50 {found}, best in epoch {best.epoch}, {seconds:.0f} s", flush=True)

    def model(self, heads: tuple[str, ...], seed: int) -> ConCFModel:
        torch.manual_seed(seed)
        items, users = len(self.split.catalogue), self.split.users
        model = ConCFModel(ConCFConfig(num_items=items, num_users=len(users), heads=heads))
        model.set_catalogue(self.split.catalogue, count_items(self.split.train, items))
        model.set_users(users)
        return model

    def trainer(self, distiller: Distiller, name: str, seed: int) -> DistillationTrainer:
        options = self.options
        optimizers = coupled_adam(distiller, options.learning_rate, options.decay, BATCH)
        steps = -(-sum(len(row["item_ids"]) for row in self.split.train) // BATCH)
        arguments = DistillationArguments(
            output_dir=str(OUTPUT / name),
            num_train_epochs=options.epochs,
            per_device_train_batch_size=BATCH,
            eval_strategy="steps",
            eval_steps=EVERY * steps,
            save_strategy="no",
            logging_strategy="epoch",
            report_to=[],
            metric_ks=KS,
            seed=seed,
            use_cpu=True,
            disable_tqdm=True,
        )
        return DistillationTrainer(distiller, arguments, self.train, self.parts["valid"], optimizers=optimizers)


class Best(TrainerCallback):
    """The student at its best moment on validation."""

    def __init__(self, trainer: DistillationTrainer) -> None:
        self.student, self.value, self.epoch = trainer.model.student, -1.0, 0
        self.state = self._copy()

    def on_evaluate(self, args, state, control, metrics, **kwargs) -> None:
        if metrics["eval_recall@50"] > self.value:
            self.value, self.epoch, self.state = metrics["eval_recall@50"], round(state.epoch), self._copy()

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self.student.state_dict().items()}


if __name__ == "__main__":
    main()

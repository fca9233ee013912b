"""Items that no model saw in training: how well each recommends them once they are added, and what that costs the rest.

    python benchmarks/cold_items.py --domain amazon_scientific --seeds 0 1 2
    python benchmarks/cold_items.py --domain amazon_office --seeds 0 1 2

A tenth of the items is hidden (`seqkd.data.cold_items`; other items for every seed). Two teachers, inductive and
transductive UniSRec, a student alone and one distilled from each teacher are trained on the rest, each with its best
epoch on valid. Then the hidden items are added: teachers read their text, students start them at the mean row, or
project them from a teacher's space or from the text vectors themselves (`seqkd.models.sasrec.item_projection`).

`cold` are the hidden test targets, ranked among all items; `warm_before` and `warm_after` the other test queries,
without and with the new items beside them. A seed is written to benchmarks/results/cold_items/<domain>.jsonl when it is
whole, and not run again. `--epochs 1` tries it out.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from seqkd import (
    RecommenderModel,
    SASRecModel,
    SequenceDataset,
    count_items,
    fit_item_projection,
    hide_items,
    rank_targets,
)
from seqkd.batches.collators import QueryCollator
from seqkd.config import Experiment, TeacherConfig, read_experiment
from seqkd.data.cold_items import HiddenItems
from seqkd.evaluation.metrics import ranking_metrics, ranks_from_scores
from seqkd.pipeline import Domain, distil, load_domains, teach, train_alone, train_teacher
from seqkd.pipeline.domains import text_features

FOLDER = Path("benchmarks/results/cold_items")
Growth = Callable[[RecommenderModel], dict | None]  # adds the hidden items; may say more about how
KS = (10,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domain", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--share", type=float, default=0.1, help="of the items to hide")
    parser.add_argument("--config", default="configs/ckd_mdsr/sasrec_amazon.yaml")
    parser.add_argument("--epochs", type=int, default=None, help="of every training, to try the script out")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where results are written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("seqkd").setLevel(logging.WARNING)
    experiment = experiment_of(options.config, options.epochs)
    whole = load_domains(experiment)[options.domain]
    vectors = text_features(whole, experiment.text)  # (I, P), encoded once
    whole = replace(whole, items=whole.items.add_column("text_features", list(vectors)))
    log = options.folder / f"{options.domain}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    finished = {json.loads(line)["seed"] for line in log.read_text().splitlines()} if log.exists() else set()
    for seed in sorted(set(options.seeds) - finished):
        started = time.time()
        hidden = hide_items(whole.split, options.share, seed)
        rows = whole.split.catalogue.encode(hidden.cold.catalogue.item_ids) - 1  # of the item table
        warm = replace(whole, split=hidden.warm, items=whole.items.select(rows[: len(hidden.warm.catalogue)]))
        entries = measure_seed(experiment, warm, hidden, vectors[rows], seed)
        shared = {
            "domain": options.domain,
            "seed": seed,
            "protocol": hidden.protocol,
            "share": options.share,
            "items": len(hidden.cold.catalogue),
            "hidden_items": len(hidden.item_ids),
            "cold_queries": len(hidden.cold.test),
            "warm_queries": len(hidden.warm.test),
        }
        about = {"command": " ".join(sys.argv), "seconds": round(time.time() - started), **versions()}
        with open(log, "a", encoding="utf-8") as file:
            file.writelines(json.dumps({**entry, **shared, "about": about}) + "\n" for entry in entries)


def experiment_of(config: str, epochs: int | None) -> Experiment:
    """The configuration with the teacher UniSRec twice, with and without item ids."""
    experiment = read_experiment(["--config", config])
    unisrec = experiment.teachers["unisrec"]
    changes = {"inductive": {"use_item_embedding": False}, "transductive": {"use_item_embedding": True}}
    experiment.teachers = {
        name: TeacherConfig("unisrec", {**unisrec.model, **change}, unisrec.training)
        for name, change in changes.items()
    }
    experiment.training |= {"disable_tqdm": True, "use_cpu": True}
    experiment.output_dir = f"{experiment.output_dir}/cold_items"
    if epochs is not None:
        experiment.training["num_train_epochs"] = epochs
        experiment.distillation.pop("num_train_epochs", None)
        for model in (experiment.student, *experiment.teachers.values()):
            model.training = {key: value for key, value in model.training.items() if key != "num_train_epochs"}
    return experiment


def measure_seed(
    experiment: Experiment, warm: Domain, hidden: HiddenItems, vectors: np.ndarray, seed: int
) -> list[dict]:
    """Train all models of a seed on the warm items, add the hidden ones in every way, and measure.

    Args:
        vectors: text vectors `(I, P)` in the order of the grown catalogue.
    """
    ids, num_warm = hidden.item_ids, len(hidden.warm.catalogue)
    tests = warm.part("test"), SequenceDataset(hidden.cold.test, len(hidden.cold.catalogue))
    entries = [
        {"model": "popularity", "items_added": "never bought", **popularity(hidden, tests)},
        {"model": "random", "items_added": "-", "cold": {"recall@10": 10 / len(hidden.cold.catalogue)}},
    ]

    def measure(model: RecommenderModel, name: str, ways: dict[str, Growth]) -> None:
        before = rank_targets(model, tests[0]).metrics(KS)
        for way, add in ways.items():
            grown = copy.deepcopy(model)
            more = add(grown) or {}
            after, cold = (rank_targets(grown, test).metrics(KS) for test in tests)
            entry = {"model": name, "items_added": way, "cold": cold, "warm_before": before, "warm_after": after}
            entries.append({**entry, **more})
            print(f"{warm.name} {seed} {name}, {way}: cold {cold} warm {before} -> {after} {more}", flush=True)

    spaces = {"text vectors": torch.nn.functional.pad(torch.from_numpy(vectors), (0, 0, 1, 0))}  # (I+1, P) each
    teachers = {}
    for name in experiment.teachers:
        teacher = teachers[name] = train_teacher(experiment, warm, name, seed)[0].eval()
        measure(teacher, f"teacher {name}", {"text": lambda model: model.add_items(ids, features=vectors[num_warm:])})
        grown = copy.deepcopy(teacher)
        grown.add_items(ids, features=vectors[num_warm:])
        spaces[f"space of teacher {name}"] = grown.content_embeddings()

    def project(space: torch.Tensor) -> Growth:
        def add(student: SASRecModel) -> dict:
            fit = fit_item_projection(student, space[: num_warm + 1])
            student.add_items(ids, teacher_embeddings=space[num_warm + 1 :])
            return {"ridge": fit.ridge, "explained": fit.explained}

        return add

    ways = {"mean row": lambda model: model.add_items(ids), **{name: project(space) for name, space in spaces.items()}}
    measure(train_alone(experiment, warm, seed).eval(), "student alone", ways)
    for name, teacher in teachers.items():
        asked = {name: [teacher]}
        student = distil(experiment, warm, seed, *teach(experiment, warm, asked), asked).student.eval()
        own = {way: add for way, add in ways.items() if way in ("mean row", "text vectors") or way.endswith(f" {name}")}
        measure(student, f"student of teacher {name}", own)
    return entries


def popularity(hidden: HiddenItems, tests: tuple[SequenceDataset, SequenceDataset]) -> dict[str, dict[str, float]]:
    """Items by how often they were bought in training: new ones come last."""
    found = {}
    for name, test, size in (
        ("warm_before", tests[0], len(hidden.warm.catalogue)),
        ("warm_after", tests[0], len(hidden.cold.catalogue)),
        ("cold", tests[1], len(hidden.cold.catalogue)),
    ):
        counts = count_items(hidden.warm.train, size)
        ranks = []
        for batch in DataLoader(test, batch_size=512, collate_fn=QueryCollator(50, seen=True)):
            scores = counts.repeat(len(batch["targets"]), 1)
            scores[:, 0] = -1
            scores[batch["seen_query"], batch["seen_items"]] = -1
            ranks.append(ranks_from_scores(scores, batch["targets"], ties="against"))
        found[name] = ranking_metrics(torch.cat(ranks), KS)
    return found


def versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "transformers", "datasets", "accelerate")}
    return {**packages, "python": platform.python_version()}


if __name__ == "__main__":
    main()

"""CKD-MDSR teaches students that know users: FM, DeepFM and LightGCN, each alone and taught by the paper's trio.

    python benchmarks/universality.py --student fm --domain amazon_scientific --seeds 0      # the search
    python benchmarks/universality.py --student fm --domain amazon_scientific --seeds 1 2    # its best, again
    python benchmarks/universality_report.py

Leave-one-out, full catalogue, histories whole. Seed 0 tries every setting of `SEARCH`, the same ones for the student
alone and for the taught one; the other seeds repeat what was best on valid. The teachers are those of
benchmarks/mdsr_trio.py: train them first. Their lists for these histories are kept under outputs/universality,
results are appended to benchmarks/results/universality/<domain>.jsonl, and what is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path

import torch
from journal import Journal

from seqkd import Knowledge, RecommenderModel, common_lists, export, labels_of
from seqkd.config import Experiment, read_experiment
from seqkd.pipeline import Domain, distil, load_domains, method_of, train_alone
from seqkd.pipeline.teachers import load_pretrained

FOLDER, OUTPUT, TEACHERS = (
    Path("benchmarks/results/universality"),
    Path("outputs/universality"),
    Path("outputs/amazon/teachers"),
)
RUNS = ("alone", "ckd")
RATES = ("training.learning_rate=0.01", "training.learning_rate=0.03")
DECAY = ("training.weight_decay=0.0", "training.weight_decay=0.3")
SOFTMAX, BPR = "student.model.loss_type=softmax", "student.model.loss_type=bpr"
SAMPLED = "student.model.loss_type=sampled_softmax student.model.num_negatives=64"  # shared by the batch
SEARCH = {
    "fm": ((SOFTMAX,), RATES, DECAY),
    "lightgcn": ((SOFTMAX, BPR), RATES, DECAY[:1]),
    "deepfm": ((SAMPLED, BPR), RATES, DECAY[1:]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True, choices=SEARCH)
    parser.add_argument("--domain", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", nargs="+", default=RUNS, choices=RUNS)
    parser.add_argument(
        "--with", nargs="*", default=[], metavar="NAME=VALUE", dest="also", help="added to all settings"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = ["--config", f"configs/ckd_mdsr/{options.student}_amazon.yaml"]
    domain = load_domains(read_experiment(config))[options.domain]
    journal = Journal(FOLDER / f"{domain.name}.jsonl", domain)
    for seed, run in product(options.seeds, options.runs):
        name = f"{options.student} {run}"
        tried = [(*setting, *options.also) for setting in settings(options.student)]
        for setting in tried if seed == 0 else [best(journal.path, name)]:
            label = f"{name} | {' '.join(setting)}"
            if (label, seed) in journal:
                continue
            experiment = read_experiment([*config, *(f"--{one}" for one in setting)])
            experiment.training |= {"disable_tqdm": True, "use_cpu": True, "report_to": []}
            experiment.output_dir, started = str(OUTPUT / options.student), time.time()
            if run == "alone":
                journal.record(train_alone(experiment, domain, seed), label, "student", seed, started)
                continue
            told = lists(experiment, domain, seed)
            models = {teacher: [load(domain, teacher, seed)] for teacher in told}
            student, weights = distil(experiment, domain, seed, method_of(experiment), told, models)
            journal.record(student, label, "distilled", seed, started, weights)


def settings(student: str) -> list[tuple[str, ...]]:
    """All combinations, each as words `name=value`."""
    return [tuple(" ".join(choices).split()) for choices in product(*SEARCH[student])]


def best(path: Path, name: str) -> tuple[str, ...]:
    """The setting whose NDCG@10 on valid is highest with seed 0."""
    found = {}
    for entry in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        model, _, setting = entry["model"].partition(" | ")
        if (model, entry["seed"], entry["split"], entry["history"]) == (name, 0, "valid", "masked"):
            found[tuple(setting.split())] = entry["metrics"]["ndcg@10"]
    if not found:
        raise SystemExit(f"{path} has no run of {name!r} with seed 0. Search first: --seeds 0.")
    return max(found, key=found.__getitem__)


def lists(experiment: Experiment, domain: Domain, seed: int) -> dict[str, Knowledge]:
    """What the trio of this seed says about the queries of whole histories, as common lists; asked once."""
    length = experiment.list_length
    folders = {name: OUTPUT / "lists" / f"{domain.name}-{name}-{seed}-{length}" for name in experiment.teachers}
    if not all((folder / "knowledge.json").exists() for folder in folders.values()):
        asked = {"split": domain.split, "part": "train", "k": 2 * length}
        told = {name: export(load(domain, name, seed), domain.split.train, **asked) for name in experiment.teachers}
        told = common_lists(told, k=length, labels=labels_of(domain.part("train")))
        for name, folder in folders.items():
            told[name].save_pretrained(folder)
    return {name: Knowledge.from_pretrained(folder) for name, folder in folders.items()}


def load(domain: Domain, name: str, seed: int) -> RecommenderModel:
    """A teacher of benchmarks/mdsr_trio.py."""
    return load_pretrained(str(TEACHERS / f"{domain.name}-{name}-{seed}"))


if __name__ == "__main__":
    main()

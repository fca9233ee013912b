"""The paper's trio on two Amazon domains: each teacher alone, and a student taught by each, each pair and all three.

    python benchmarks/mdsr_trio.py --domain amazon_scientific --seeds 0 1 2 --teachers unisrec recformer unim2rec
    python benchmarks/mdsr_trio.py --domain amazon_scientific --seeds 0 1 2 --distil
    python benchmarks/mdsr_trio_report.py

Leave-one-out, full catalogue, chosen on valid. One process trains one domain; teachers and their knowledge are kept
under the output folder, results are appended to benchmarks/results/trio/<domain>.jsonl, and what is there already is
not run again.
"""

from __future__ import annotations

import argparse
import time
from itertools import combinations
from pathlib import Path

import torch
from journal import Journal
from scientific_images import with_images

from seqkd import Knowledge, common_lists, export, labels_of
from seqkd.config import read_experiment
from seqkd.pipeline import distil, load_domains, method_of, pretrain_teacher, train_alone, train_teacher
from seqkd.pipeline.teachers import load_pretrained

CONFIG = "configs/ckd_mdsr/sasrec_amazon_trio.yaml"
FOLDER = Path("benchmarks/results/trio")
TRIO = ("unisrec", "recformer", "unim2rec")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domain", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--teachers", nargs="+", default=[], help="teachers to train, measure and ask")
    parser.add_argument("--distil", nargs="*", default=None, help="sets such as unisrec+recformer; none: all")
    parser.add_argument("--alone", action="store_true", help="also the student without teacher")
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--label", default="", help="appended to the names of students, for a variant of the recipe")
    options, overrides = parser.parse_known_args()
    torch.set_num_threads(1)
    experiment = read_experiment(["--config", options.config, *overrides])
    experiment.training |= {"disable_tqdm": True, "use_cpu": True}
    domains = load_domains(experiment)
    if "amazon_scientific" in domains:
        domains["amazon_scientific"] = with_images(domains["amazon_scientific"])
    domain, output = domains[options.domain], Path(experiment.output_dir)
    journal = Journal(FOLDER / f"{domain.name}.jsonl", domain)

    def teacher(name: str, seed: int):
        """Loaded from an earlier run, or trained now."""
        folder, started = output / "teachers" / f"{domain.name}-{name}-{seed}", time.time()
        if not (folder / "config.json").exists():
            pretrained = None
            if experiment.teachers[name].pretraining is not None:
                shared = output / "pretrained" / name
                if not (shared / "config.json").exists():
                    pretrain_teacher(experiment, domains, name).save_pretrained(shared)
                pretrained = load_pretrained(str(shared))
            train_teacher(experiment, domain, name, seed, pretrained)[0].save_pretrained(folder)
        model = load_pretrained(str(folder))
        if (f"teacher {name}", seed) not in journal:
            journal.record(model, f"teacher {name}", "teacher", seed, started)
        return model

    def knowledge(name: str, seed: int) -> Knowledge:
        """Exported once, memory-mapped afterwards."""
        folder = output / "knowledge" / f"{domain.name}-{name}-{seed}"
        if not (folder / "knowledge.json").exists():
            told = {"split": domain.split, "part": "train", "k": 2 * experiment.list_length}
            export(teacher(name, seed), domain.split.train, folder=folder, **told)
        return Knowledge.from_pretrained(folder)

    for seed in options.seeds:
        for name in options.teachers:
            teacher(name, seed)
            knowledge(name, seed)
        if options.alone and ("student alone", seed) not in journal:
            started = time.time()
            trained = sorted((output / "runs" / f"{domain.name}-alone-{seed}").glob("checkpoint-*"))  # of amazon.py
            student = load_pretrained(str(trained[-1])) if trained else train_alone(experiment, domain, seed)
            journal.record(student, "student alone", "student", seed, started)
        if options.distil is None:
            continue
        subsets = [set_.split("+") for set_ in options.distil] or [
            list(set_) for size in (1, 2, 3) for set_ in combinations(TRIO, size)
        ]
        for names in subsets:
            label = "CKD " + " + ".join(names) + options.label
            if (label, seed) in journal:
                continue
            started = time.time()
            told = common_lists(
                {name: knowledge(name, seed) for name in names},
                k=experiment.list_length,
                labels=labels_of(domain.part("train")),
            )
            models = {name: [teacher(name, seed)] for name in names}
            student, weights = distil(experiment, domain, seed, method_of(experiment), told, models)
            journal.record(student, label, "distilled", seed, started, weights)


if __name__ == "__main__":
    main()

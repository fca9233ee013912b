"""The main result and its ablations: two Amazon domains, leave-one-out, full catalogue, everything chosen on valid.

    python benchmarks/amazon.py --domain amazon_scientific --seeds 0 1 2
    python benchmarks/amazon.py --domain amazon_office --seeds 0 1 2 --controls
    python benchmarks/amazon_report.py --measure-cost

One process trains one domain; results are appended to benchmarks/results/amazon/<domain>.jsonl as they come, and what
is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoModel

from seqkd import RecommenderModel, SASRecConfig, SASRecModel, UniSRecForPretraining, UniSRecModel, rank_targets
from seqkd.config import TeacherConfig, read_experiment
from seqkd.evaluation.cost import measure_cost
from seqkd.evaluation.results import Result
from seqkd.pipeline import (
    Domain,
    distil,
    histories_of,
    load_domains,
    pretrain_teacher,
    teach,
    train_alone,
    train_teacher,
)

CONFIG = "configs/ckd_mdsr/sasrec_amazon.yaml"
FOLDER = Path("benchmarks/results/amazon")
NO_WEIGHTS = {"confidence": "none", "consistency": "none", "instance_weighting": False}
# What each variant changes: fields of the method, fields of the experiment, and the teachers it keeps.
VARIANTS: dict[str, tuple[dict, dict, list[str] | None]] = {
    "CKD-MDSR": ({}, {}, None),
    "uniform average, no curriculum": ({**NO_WEIGHTS, "curriculum": None}, {}, None),
    "no curriculum": ({"curriculum": None}, {}, None),
    "no confidence": ({"confidence": "none"}, {}, None),
    "no consistency": ({"consistency": "none", "instance_weighting": False}, {}, None),
    "uniform average": (NO_WEIGHTS, {}, None),
    "only UniSRec": ({}, {}, ["unisrec"]),
    "only UniSRec, one expert": ({}, {}, ["unisrec_1"]),
    "only wide SASRec": ({}, {}, ["sasrec"]),
    "all three": ({}, {}, ["unisrec", "unisrec_1", "sasrec"]),
    "in-batch candidates": (
        {"candidates": "in_batch", "temperature": 0.5, "score_normalization": "zscore"},
        {"label_weight": 1.0, "method_weight": 0.5},
        None,
    ),
    "no tail queries": ({}, {"distillation": {"tail_queries": False}}, None),
    "no warm start": ({}, {"warm_start": False}, None),
}
WIDE = {"hidden_size": 128, "similarity": "cosine", "temperature": 0.07, "attention_probs_dropout_prob": 0.0}
TAUGHT_BY = ["unisrec", "unisrec_1"]
DOT = (
    "student alone, dot product"  # the other similarity, tuned in the same search: stronger where history is not masked
)
# The control for what text alone brings: the shape of the student, item vectors id + linear(text), no teacher.
CONTROL = "student alone, text folded in"
CONTROL_CONFIG = TeacherConfig(
    "unisrec",
    {
        "hidden_size": 64,
        "use_item_embedding": True,
        "num_experts": 1,
        "attention_probs_dropout_prob": 0.0,
        "temperature": 0.1,
    },
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domain", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--teachers", nargs="+", default=None, help="all of the configuration by default")
    parser.add_argument("--controls", action="store_true", help="also the baselines that no teacher teaches")
    options = parser.parse_args()
    torch.set_num_threads(1)
    experiment = read_experiment(["--config", CONFIG])
    experiment.training |= {"disable_tqdm": True, "use_cpu": True}
    experiment.teachers["sasrec"] = TeacherConfig("sasrec", WIDE)
    domains = load_domains(experiment)
    domain, output = domains[options.domain], Path(experiment.output_dir)
    log = FOLDER / f"{options.domain}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)

    def done() -> set[tuple[str, int]]:
        lines = log.read_text().splitlines() if log.exists() else []
        return {(entry["model"], entry["seed"]) for entry in map(json.loads, lines)}

    def record(model: RecommenderModel, name: str, role: str, seed: int, started: float) -> None:
        cost = measure_cost(model, histories_of(domain, "test", 256))
        for split in ("valid", "test"):
            for history in ("masked", "unmasked"):
                ranks = rank_targets(model, domain.part(split), history=history)
                result = Result(
                    name,
                    role,
                    domain.name,
                    domain.name,
                    seed,
                    split,
                    domain.split.protocol,
                    history,
                    ranks.metrics(),
                    num_users=len(domain.split.test),
                    num_queries=len(ranks.ranks),
                    **cost._asdict(),
                )
                with open(log, "a", encoding="utf-8") as file:
                    about = {"command": " ".join(sys.argv), "seconds": round(time.time() - started), **versions()}
                    file.write(json.dumps({**asdict(result), "about": about}) + "\n")
        print(f"{domain.name} {seed} {name}: test {result.metrics} {time.time() - started:.0f} s", flush=True)

    for seed in options.seeds:
        teachers = {}
        for name in options.teachers or experiment.teachers:
            folder, started = output / "teachers" / f"{domain.name}-{name}-{seed}", time.time()
            if (folder / "config.json").exists():
                teachers[name] = [AutoModel.from_pretrained(folder)]
                continue
            config, pretrained = experiment.teachers[name], None
            if config.pretraining is not None:
                pretrained = pretrain_once(experiment, domains, name, output / "pretrained" / f"{domain.name}-{name}")
            teachers[name] = train_teacher(experiment, domain, name, seed, pretrained)
            teachers[name][0].save_pretrained(folder)
            record(teachers[name][0], f"teacher {name}", "teacher", seed, started)
        if ("student alone", seed) not in done():
            started = time.time()
            record(train_alone(experiment, domain, seed), "student alone", "student", seed, started)
        if options.controls and (DOT, seed) not in done():
            started = time.time()
            model = {**experiment.student.model, "similarity": "dot", "temperature": 1.0}
            changed = replace(experiment, student=replace(experiment.student, model=model))
            record(train_alone(changed, domain, seed), DOT, "student", seed, started)
        if options.controls and (CONTROL, seed) not in done():
            started = time.time()
            control = replace(experiment, teachers={"control": CONTROL_CONFIG})
            record(fold(train_teacher(control, domain, "control", seed)[0], domain), CONTROL, "student", seed, started)
        for name in options.variants:
            method_changes, changes, kept = VARIANTS[name]
            asked = {teacher: teachers[teacher] for teacher in kept or TAUGHT_BY if teacher in teachers}
            if (name, seed) in done() or len(asked) < len(kept or TAUGHT_BY):
                continue
            started = time.time()
            changed = replace(experiment, method={**experiment.method, **method_changes}, **changes)
            method, knowledge = teach(changed, domain, asked)
            record(distil(changed, domain, seed, method, knowledge, asked).student, name, "distilled", seed, started)


def fold(model: UniSRecModel, domain: Domain) -> SASRecModel:
    """The same recommender without its text: id and adapted text become one item table, served like any SASRec."""
    config = model.config
    student = SASRecModel(
        SASRecConfig(
            num_items=config.num_items,
            hidden_size=config.hidden_size,
            similarity="cosine",
            temperature=config.temperature,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
        )
    ).eval()
    missing, _ = student.load_state_dict(
        {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("item_embedding")},
        strict=False,
    )
    assert missing == ["item_embedding.weight"], missing
    model.eval()
    with torch.no_grad():
        student.item_embedding.weight.copy_(model._vectors(torch.arange(config.num_items + 1)))
    student.set_catalogue(domain.split.catalogue)
    before, after = (rank_targets(one, domain.part("valid")).metrics() for one in (model, student))
    assert all(abs(before[name] - after[name]) < 1e-3 for name in before), (before, after)
    return student


def pretrain_once(experiment, domains, name, folder):
    """Pre-trained weights do not depend on the seed of what follows: one pre-training serves all."""
    if not (folder / "config.json").exists():
        model = pretrain_teacher(experiment, domains, name)
        model.save_pretrained(folder)
    return UniSRecForPretraining.from_pretrained(folder)


def versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "transformers", "datasets", "accelerate")}
    return {**packages, "python": platform.python_version()}


if __name__ == "__main__":
    main()

"""CCD on a stream, its baselines and the release's ways of doing things, one after the other.

    python benchmarks/ccd.py --config configs/ccd/yelp_mf.yaml --seeds '[0, 1, 2]'
    python benchmarks/ccd.py --config configs/ccd/yelp_mf.yaml --variants          # seed 0: what each switch does
    python benchmarks/ccd.py --config configs/ccd/yelp_mf.yaml --graphs            # and what a graph without training
    python benchmarks/ccd.py --config configs/ccd/yelp_mf.yaml --blocks 3 --lwf    # by what LwF should remember
    python benchmarks/ccd.py --config configs/ccd/yelp_mf.yaml --updates           # what matters in stage 2

Runs are kept under the configuration's output_dir and go on where they stopped. Matrices a[k][i] of Recall and NDCG
@20, of new and known users and of new items, and what each stage took, go to benchmarks/results/ccd/<name>.json with a
table and a figure beside it, `name` being that of the configuration; what other modes find goes to <name>_<mode>.json.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from journal import about

from seqkd.continual.baselines import Baseline, Chain
from seqkd.continual.configuration import ContinualConfig
from seqkd.continual.evolution import Evolution
from seqkd.continual.experiment import Contest, StreamExperiment, read_stream, report_of
from seqkd.continual.graph import POLICIES
from seqkd.continual.learning import extend, learn
from seqkd.evaluation.stream import block_metrics
from seqkd.evaluation.stream_matrix import StreamMatrix, stream_table
from seqkd.parsing import parse

RESULTS = Path("benchmarks/results/ccd")
METRICS = ("recall@20", "ndcg@20", "new_users/recall@20", "old_users/recall@20", "new_items/recall@20")
# by name: settings of a run that differ, a dictionary for each stage
VARIANTS: dict[str, dict[str, Any]] = {
    "as configured": {},
    "the block's graph alone (release)": {"graph": "block"},
    "decayed graph": {"graph": "decayed"},
    "fresh students (paper)": {"fresh": True},
    "fresh students, the block's users alone (release)": {"fresh": True, "teach_everyone": False},
    "static replay (release)": {"update_student": {"reference": "start"}, "update_teacher": {"reference": "start"}},
    "no replay": {"update_student": None, "update_teacher": None},
    "random rows for what is new": {"init": "random"},
    "one hop": {"init": "one_hop"},
    "newcomers as long as a mean is (paper)": {"lengths": "mean"},
    "negatives avoid the sources' 40 best (paper)": {"avoided": 40},
}
STAGES = ("update_student", "update_teacher")
# by name: settings of the student's update that differ
UPDATES: dict[str, dict[str, Any]] = {
    "as configured": {},
    "no replay": {"replay": 0.0},
    "replay weighs ten times as much": {"replay": 5.0},
    "newcomers as long as a mean is (paper)": {"lengths": "mean"},
    "one hop": {"init": "one_hop"},
    "random rows for what is new": {"init": "random"},
    "negatives avoid the proxies' 40 best (paper)": {"avoided": 40},
    "learning rate 5e-3": {"learning_rate": 5e-3},
    "learning rate 5e-3, negatives avoid the 40 best": {"learning_rate": 5e-3, "avoided": 40},
    "decayed graph": {"graph": "decayed"},
}
PARTS = ("valid", "test")
# of LwF: the method by which it remembers, its settings, its weights
REMEMBERED: list[tuple[str, dict[str, int], tuple[float, ...]]] = [
    ("rrd", {"interesting": 40, "uninteresting": 200}, (1e-4, 1e-3, 1e-2)),
    ("full_ce", {"max_queries": 256}, (1e-2, 1e-1, 1.0)),
]


def main() -> None:
    modes = {"--variants": variants, "--graphs": graphs, "--lwf": lwf, "--updates": updates}
    arguments = [argument for argument in sys.argv[1:] if argument not in modes]
    experiment = parse(StreamExperiment, __doc__ or "", arguments)
    name = next(Path(value).stem for flag, value in pairwise(arguments) if flag == "--config")
    torch.set_num_threads(1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    chosen = [mode for flag, mode in modes.items() if flag in sys.argv] or [contest]
    for mode in chosen:
        mode(experiment, name)


def contest(experiment: StreamExperiment, name: str) -> None:
    """All runs over all seeds."""
    started, blocks, contests = time.time(), read_stream(experiment), []
    for seed in experiment.seeds:
        contests.append(Contest(experiment, seed))
        for told in contests[-1].run(blocks):
            print(f"{time.strftime('%H:%M:%S')} seed {seed}, {told}", flush=True)
        told = {metric: {} for metric in METRICS}
        for done in contests:
            for metric in METRICS:
                for run, matrix in done.matrices(metric).items():
                    told[metric].setdefault(run, []).append(rows_of(matrix))
        costs = [
            {"CCD": dict_of(done.evolution.ledger, len(blocks))}
            | {run: dict_of(chain.ledger, len(blocks)) for run, chain in done.chains.items()}
            for done in contests
        ]
        seeds = experiment.seeds[: len(contests)]
        write(name, {"seeds": seeds, "config": asdict(experiment.run), "matrices": told, "costs": costs}, started)
        folder = RESULTS / name
        report_of(contests, folder, blocks[0].domain)
        (folder / "stream.json").unlink()


def variants(experiment: StreamExperiment, name: str) -> None:
    """The run with one thing changed at a time; what comes before the change is taken from the run itself."""
    started, blocks, seed = time.time(), read_stream(experiment), experiment.seeds[0]
    told: dict[str, Any] = {}
    costs: dict[str, Any] = {}
    for number, (variant, changes) in enumerate(VARIANTS.items()):
        config = changed(replace(experiment.run, seed=seed), changes)
        folder = Path(experiment.output_dir) / f"seed-{seed}"
        place = folder / "ccd" if not changes else folder / "variants" / str(number)
        run = Evolution(place, config)
        if not (place / "0").exists():  # no variant changes the base block
            shutil.copytree(folder / "ccd" / "0", place / "0")
        for block in blocks[len(run.blocks) :]:
            print(f"{time.strftime('%H:%M:%S')} {variant}, block {block.number}", flush=True)
            run.step(block)
        told[variant] = {
            metric: {of: rows_of(matrix)[: len(blocks)] for of, matrix in run.matrices(metric).items()}
            for metric in METRICS
        }
        costs[variant] = dict_of(run.ledger, len(blocks))
        noted = {"seed": seed, "config": asdict(experiment.run), "variants": told, "costs": costs}
        write(f"{name}_variants", noted, started)
    matrices = {
        f"{variant}: {of}": [StreamMatrix("recall@20", rows)]
        for variant, metrics in told.items()
        for of, rows in metrics["recall@20"].items()
    }
    (RESULTS / f"{name}_variants.md").write_text(stream_table(matrices), encoding="utf-8")


def graphs(experiment: StreamExperiment, name: str) -> None:
    """The base teachers on the base block and the next, before they train on it: what each graph alone does to them."""
    started, seed = time.time(), experiment.seeds[0]
    run = Evolution(Path(experiment.output_dir) / f"seed-{seed}" / "ccd")
    first, second, *_ = read_stream(experiment)
    told: dict[str, Any] = {}
    for teacher in run.config.teachers:
        model = run.model(0, f"teachers/{teacher}")
        told[teacher] = {"before": {"D0": block_metrics(model, first, first)}}
        for policy in POLICIES:
            model = run.model(0, f"teachers/{teacher}")
            extend(model, second, replace(run.config, graph=policy))
            found = {f"D{one.number}": block_metrics(model, one, second) for one in (first, second)}
            print(teacher, policy, {block: round(metrics["recall@20"], 4) for block, metrics in found.items()})
            told[teacher][policy] = found
    write(f"{name}_graphs", {"seed": seed, "config": asdict(run.config), "teachers": told}, started)


def lwf(experiment: StreamExperiment, name: str) -> None:
    """H-mean of the student that learns with LwF, by method and weight, on validation, which chooses, and on test."""
    started, blocks, seed = time.time(), read_stream(experiment), experiment.seeds[0]
    contest, told = Contest(experiment, seed), {}
    folder, first = contest.folder / "variants", contest.folder / "ccd" / "0" / "generated"
    config, metric = contest.evolution.config, contest.evolution.config.metric
    for method, settings, weights in REMEMBERED:
        for weight in weights:
            how = Baseline(methods={method: settings}, weights={method: weight})
            stages = {"model": config.student, "stage": config.update_student, "base": config.base, "first": first}
            chain = Chain(folder / f"lwf-{method}-{weight}", how, config, **stages)
            found = {part: StreamMatrix(metric) for part in ("valid", "test")}
            for k, block in enumerate(blocks):
                if not chain.has(k):
                    chain.step(blocks[: k + 1])
                for part, matrix in found.items():
                    past = [block_metrics(chain.model(k), one, block, part=part) for one in blocks[: k + 1]]
                    matrix.add([metrics[metric] for metrics in past])
            run = f"{method}, {weight}"
            told[run] = {part: [round(m.h_mean(k), 5) for k in range(len(blocks))] for part, m in found.items()}
            print(run, told[run], flush=True)
            write(f"{name}_lwf", {"seed": seed, "config": asdict(experiment.run), "h_mean": told}, started)


def updates(experiment: StreamExperiment, name: str) -> None:
    """The student's update alone (stage 2), with one thing changed at a time, from the students of finished runs.

    Of each seed and block: the metric on validation and test of each block so far, on new items, and seconds.
    """
    started, told = time.time(), {}
    for variant, changes in UPDATES.items():
        if "graph" in changes and experiment.run.student.type != "lightgcn":
            continue
        for seed in experiment.seeds:
            run = Evolution(Path(experiment.output_dir) / f"seed-{seed}" / "ccd")
            for k in range(1, len(run.blocks[: experiment.blocks])):
                found = update_of(run, k, changed_update(run.config, changes))
                print(variant, seed, k, found, flush=True)
                told.setdefault(variant, []).append({"seed": seed, "block": k, **found})
            config, load = asdict(experiment.run), os.getloadavg()
            write(f"{name}_updates", {"config": config, "load_average": load, "updates": told}, started)
    (RESULTS / f"{name}_updates.md").write_text(updates_table(told), encoding="utf-8")


def update_of(run: Evolution, k: int, config: ContinualConfig) -> dict[str, Any]:
    """What a student knows that learned block k as `config` says, and the seconds of one thread that it took."""
    blocks, student = run.blocks[: k + 1], run.model(k - 1, "generated")
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        learn(student, blocks, config, config.update_student, run._proxies(blocks), Path(folder))
    run._on_validation(student, blocks[-1], blocks)  # as the stage does
    found = {"cpu_s": round(time.process_time() - started, 2)}
    metrics = {part: [block_metrics(student, one, blocks[-1], part=part) for one in blocks] for part in PARTS}
    found |= {part: [round(of[config.metric], 5) for of in metrics[part]] for part in PARTS}
    return found | {"new_items": round(metrics["test"][-1][f"new_items/{config.metric}"], 5)}


def updates_table(told: Mapping[str, list[dict[str, Any]]]) -> str:
    """Means over seeds and blocks, with standard deviations over seeds where there are several."""
    rows = [
        ["", "valid, all blocks", "test, all blocks", "test, old blocks", "test, the new one", "new items", "CPU s"]
    ]
    for variant, runs in told.items():
        columns = (
            lambda one: fmean(one["valid"]),
            lambda one: fmean(one["test"]),
            lambda one: fmean(one["test"][:-1]),
            lambda one: one["test"][-1],
            lambda one: one["new_items"],
        )
        seeds = sorted({one["seed"] for one in runs})
        cells = []
        for column in columns:
            values = [fmean(column(one) for one in runs if one["seed"] == seed) for seed in seeds]
            cells.append(f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else ""))
        seconds = [one["cpu_s"] for one in runs]
        rows.append([variant, *cells, f"{min(seconds):.1f} to {max(seconds):.1f}"])
    blocks = sorted({one["block"] for runs in told.values() for one in runs})
    first = f"Recall@20 of the student that has just learned a block, means over blocks {blocks} and seeds."
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([first, "", lines[0], "|" + " --- |" * len(rows[0]), *lines[1:], ""])


def changed_update(config: ContinualConfig, changes: Mapping[str, Any]) -> ContinualConfig:
    """With other settings of the student's update: its learning rate, the weight of replay, or those of the run."""
    changes, stage = dict(changes), config.update_student
    if "learning_rate" in changes:
        rate = changes.pop("learning_rate")
        stage = replace(stage, training={**stage.training, "learning_rate": rate})
    if "replay" in changes:
        weight = changes.pop("replay")
        stage = replace(stage, methods=stage.methods if weight else {}, weights={"replay": weight} if weight else {})
    return replace(config, update_student=stage, **changes)


def changed(config: ContinualConfig, changes: Mapping[str, Any]) -> ContinualConfig:
    """With other settings; of a stage, other settings of its replay, or none of it."""
    for key, value in changes.items():
        if key in STAGES:
            stage = getattr(config, key)
            methods = {} if value is None else {"replay": {**stage.methods["replay"], **value}}
            value = replace(stage, methods=methods, weights=stage.weights if methods else {})
        config = replace(config, **{key: value})
    return config


def rows_of(matrix: StreamMatrix) -> list[list[float | None]]:
    return [[round(value, 6) if value == value else None for value in row] for row in matrix.rows]


def dict_of(ledger: Any, blocks: int) -> list[dict[str, Any]]:
    return [dict(ledger(k).costs()) for k in range(blocks)]


def write(name: str, told: dict[str, Any], started: float) -> None:
    (RESULTS / f"{name}.json").write_text(json.dumps({"about": about(started), **told}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Tables and figure from benchmarks/results/amazon/*.jsonl: python benchmarks/amazon_report.py

Everything is chosen by mean NDCG@10 on valid (history masked): the baseline of a domain, the stronger of the students
alone with cosine and with dot product, and which variant is shown first. Test decides nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import torch
from transformers import AutoModel

from seqkd import leave_one_out, load_markets
from seqkd.config import read_experiment
from seqkd.evaluation.cost import measure_cost
from seqkd.evaluation.report import relative_gain, table
from seqkd.evaluation.results import Result, Spread, Summary, summarise
from seqkd.figures.cost import cost_figure

FOLDER = Path("benchmarks/results/amazon")
METRIC = "ndcg@10"
CONFIG = "configs/ckd_mdsr/sasrec_amazon.yaml"
BASELINES = ("student alone", "student alone, dot product")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure-cost", action="store_true", help="time the saved models again, on a quiet machine")
    if parser.parse_args().measure_cost:
        measure_costs()
    costs = json.loads((FOLDER / "cost.json").read_text(encoding="utf-8"))
    results = []
    for path in sorted(FOLDER.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            entry.pop("about")
            entry["ms_per_user"] = costs[entry["domain"]][
                entry["model"] if entry["model"].startswith("teacher") else "student"
            ]
            results.append(Result(**entry))
    rows = {(s.first.model, s.first.domain, s.first.split, s.first.history): s for s in summarise(results)}
    baselines = {domain: baseline(rows, domain) for domain in sorted({r.domain for r in results})}
    by_variant = ablation(rows, baselines)
    most = max(row["seeds"] for row in by_variant if row["role"] == "distilled")
    taught = [row for row in by_variant if row["role"] == "distilled" and row["seeds"] == most]
    best = max(taught, key=lambda row: row["valid"])["model"]
    shown = [
        r
        for r in results
        if r.split == "test"
        and (r.model in (best, *BASELINES) or (r.role == "teacher" and r.model != "teacher sasrec"))
    ]
    chosen = "; ".join(f"{domain}: {name}" for domain, name in baselines.items())
    text = f"Chosen on valid: {best}. Baselines: {chosen}.\n\n{table(shown)}\n{ablation_table(by_variant)}"
    (FOLDER / "tables.md").write_text(text, encoding="utf-8")
    cost_figure([r for r in shown if r.history == "masked"], FOLDER / "accuracy_against_cost.png")
    print(text)


def measure_costs() -> None:
    """Latency of the models of seed 0, taken in one go: trainings ran side by side, so theirs are not comparable.

    All students are one architecture and cost the same; it is measured on the student alone.
    """
    torch.set_num_threads(1)
    experiment = read_experiment(["--config", CONFIG])
    output, costs = Path(experiment.output_dir), {}
    for name, market in load_markets(experiment.data).items():
        split = leave_one_out(market)
        histories = [split.catalogue.decode(row[:-1]) for row in split.test["item_ids"][:256]]
        folders = {f"teacher {t}": output / "teachers" / f"{name}-{t}-0" for t in (*experiment.teachers, "sasrec")}
        folders["student"] = max((output / "runs" / f"{name}-alone-0").glob("checkpoint-*"))
        models = {label: AutoModel.from_pretrained(folder).eval() for label, folder in folders.items()}
        costs[name] = {label: measure_cost(model, histories, repeats=15).ms_per_user for label, model in models.items()}
    (FOLDER / "cost.json").write_text(json.dumps(costs, indent=1) + "\n", encoding="utf-8")


def baseline(rows: dict, domain: str) -> str:
    """The student alone that is better on valid."""
    measured = [name for name in BASELINES if (name, domain, "valid", "masked") in rows]
    return max(measured, key=lambda name: rows[(name, domain, "valid", "masked")].spread(METRIC).mean)


def ablation(rows: dict, baselines: dict[str, str]) -> list[dict]:
    """One row a model: mean valid NDCG@10, test NDCG@10 of each domain, and the gain over the baseline."""
    found = []
    for model in dict.fromkeys(name for name, *_ in rows):
        valid = {domain: rows.get((model, domain, "valid", "masked")) for domain in baselines}
        test = {domain: rows.get((model, domain, "test", "masked")) for domain in baselines}
        if not all(test.values()):
            continue
        found.append(
            {
                "model": model,
                "role": next(iter(test.values())).first.role,
                "valid": fmean(one.spread(METRIC).mean for one in valid.values()),
                "seeds": min(len(one.results) for one in test.values()),
                "test": {domain: one.spread(METRIC) for domain, one in test.items()},
                "gain": {d: gain_on(test[d], rows[(name, d, "test", "masked")]) for d, name in baselines.items()},
            }
        )
    return found


def gain_on(taught: Summary, alone: Summary) -> Spread:
    """Gain paired by the seeds that both have."""
    shared = set(taught.by_seed(METRIC)) & set(alone.by_seed(METRIC))
    pick = [Summary(tuple(r for r in one.results if r.seed in shared)) for one in (taught, alone)]
    gain = relative_gain(*pick, METRIC)
    assert gain is not None
    return gain


def ablation_table(rows: Sequence[dict]) -> str:
    domains = list(rows[0]["test"])
    lines = [
        "| model | seeds | valid NDCG@10 | " + " | ".join(f"test, {d} | gain" for d in domains) + " | mean gain |",
        "|---|---|---|" + "---|---|" * len(domains) + "---|",
    ]
    for row in rows:
        cells = []
        for domain in domains:
            test, gain = row["test"][domain], row["gain"][domain]
            several = gain.seeds > 1
            spread = (f" ± {test.std:.4f}", f" ± {100 * gain.std:.1f}") if several else ("", "")
            cells.append(f"{test.mean:.4f}{spread[0]} | {100 * gain.mean:+.1f}{spread[1]} %")
        mean = fmean(row["gain"][d].mean for d in domains)
        lines.append(
            f"| {row['model']} | {row['seeds']} | {row['valid']:.4f} | {' | '.join(cells)} | {100 * mean:+.1f} % |"
        )
    return (
        "NDCG@10, history masked; gain over the baseline of the domain, paired by seed.\n\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()

"""Tables from benchmarks/results/universality: python benchmarks/universality_report.py

Leave-one-out on the full catalogue, history masked. Every row has the setting that was best on valid with seed 0; test
decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from mdsr_trio_report import read
from universality import FOLDER, RUNS, SEARCH

from seqkd.evaluation.results import Result, Spread

METRICS = ("recall@10", "ndcg@10")
NAMES = {"fm": "FM", "deepfm": "DeepFM", "lightgcn": "LightGCN"}
TAUGHT = {"alone": "alone", "ckd": "CKD-MDSR"}


def by_setting(results: Sequence[Result], domain: str, name: str) -> dict[str, list[Result]]:
    """The results of a student, alone or taught, history masked, by setting."""
    found: dict[str, list[Result]] = {}
    for one in results:
        model, _, setting = one.model.partition(" | ")
        if (one.domain, model, one.history) == (domain, name, "masked"):
            found.setdefault(setting, []).append(one)
    return found


def on_valid(results: Sequence[Result]) -> float:
    """NDCG@10 of seed 0, which chooses."""
    return max((one.metrics["ndcg@10"] for one in results if (one.split, one.seed) == ("valid", 0)), default=-1.0)


def chosen(results: Sequence[Result], domain: str, name: str) -> tuple[str, list[Result]]:
    """The best setting and its results; none where nothing was run."""
    found = by_setting(results, domain, name)
    return max(found.items(), key=lambda item: on_valid(item[1]), default=("", []))


def values(results: Sequence[Result], split: str, metric: str) -> dict[int, float]:
    """By seed."""
    return {one.seed: one.metrics[metric] for one in results if one.split == split}


def show(found: dict[int, float]) -> str:
    spread = Spread.of(list(found.values()))
    return f"{spread.mean:.4f}" + (f" ± {spread.std:.4f}" if spread.seeds > 1 else "")


def students_table(results: Sequence[Result], domains: Sequence[str]) -> str:
    """One row a domain, student and run; gains are of test NDCG@10, paired by seed."""
    columns = [f"{split} {name}" for split in ("valid", "test") for name in ("Recall@10", "NDCG@10")]
    lines = [f"| domain | student | | seeds | {' | '.join(columns)} | gain |", "|---" * (len(columns) + 5) + "|"]
    for domain in domains:
        for student in SEARCH:
            alone: dict[int, float] = {}
            for run in RUNS:
                _, runs = chosen(results, domain, f"{student} {run}")
                if not runs:
                    continue
                cells = [show(values(runs, split, name)) for split in ("valid", "test") for name in METRICS]
                test = values(runs, "test", "ndcg@10")
                pairs = [test[seed] / alone[seed] - 1 for seed in test if alone.get(seed)]
                gain = f"{100 * fmean(pairs):+.1f} %" if pairs else ""
                alone = alone or test
                lines.append(
                    f"| {domain} | {NAMES[student]} | {TAUGHT[run]} | {len(test)} | {' | '.join(cells)} | {gain} |"
                )
    return "\n".join(lines) + "\n"


def search_table(results: Sequence[Result], domains: Sequence[str]) -> str:
    """Every setting that was tried, by NDCG@10 on valid with seed 0."""
    lines = ["| domain | student | | setting | valid NDCG@10 |", "|---|---|---|---|---|"]
    for domain in domains:
        for student in SEARCH:
            for run in RUNS:
                tried = {s: on_valid(runs) for s, runs in by_setting(results, domain, f"{student} {run}").items()}
                for setting, value in sorted(tried.items(), key=lambda item: -item[1]):
                    lines.append(f"| {domain} | {NAMES[student]} | {TAUGHT[run]} | `{setting}` | {value:.4f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    results, _ = read(FOLDER)
    domains = list(dict.fromkeys(one.domain for one in results))
    text = "# Students that know users, alone and taught by unisrec + recformer + unim2rec\n\n"
    text += students_table(results, domains) + "\n# The search (seed 0)\n\n" + search_table(results, domains)
    (FOLDER / "tables.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

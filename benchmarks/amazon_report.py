"""Tables and figure from benchmarks/results/amazon/*.jsonl: python benchmarks/amazon_report.py

The distilled student that is shown first is the variant of the highest mean NDCG@10 on valid; test decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from seqkd.figure import figure
from seqkd.report import relative_gain, table
from seqkd.results import Result, Spread, Summary, summarise

FOLDER = Path("benchmarks/results/amazon")
METRIC = "ndcg@10"


def main() -> None:
    results = []
    for path in sorted(FOLDER.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            entry.pop("about")
            results.append(Result(**entry))
    by_variant = ablation(results)
    complete = [row for row in by_variant if row["seeds"] == max(r["seeds"] for r in by_variant)]
    best = max(complete, key=lambda row: row["valid"])["model"]
    shown = [r for r in results if r.split == "test" and (r.role != "distilled" or r.model == best)]
    text = f"Chosen on valid: {best}\n\n{table(shown)}\n{ablation_table(by_variant)}"
    (FOLDER / "tables.md").write_text(text, encoding="utf-8")
    figure([r for r in shown if r.history == "masked"], FOLDER / "accuracy_against_cost.png")
    print(text)


def ablation(results: Sequence[Result]) -> list[dict]:
    """One row a variant: mean valid NDCG@10, test NDCG@10 of each domain, and the gain over the student alone."""
    rows = {(s.first.model, s.first.domain, s.first.split, s.first.history): s for s in summarise(results)}
    domains = sorted({s.first.domain for s in rows.values()})
    found = []
    for model in dict.fromkeys(r.model for r in results if r.model != "student alone"):
        per_domain = [[rows.get((model, d, split, "masked")) for split in ("valid", "test")] for d in domains]
        if any(valid is None or test is None for valid, test in per_domain):
            continue
        gains = [
            gain_on(test, rows[("student alone", d, "test", "masked")])
            for d, (_, test) in zip(domains, per_domain, strict=True)
        ]
        found.append(
            {
                "model": model,
                "valid": fmean(valid.spread(METRIC).mean for valid, _ in per_domain),
                "seeds": min(len(test.results) for _, test in per_domain),
                "test": {d: test.spread(METRIC) for d, (_, test) in zip(domains, per_domain, strict=True)},
                "gain": dict(zip(domains, gains, strict=True)),
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
        cells = [
            f"{row['test'][d].mean:.4f} ± {row['test'][d].std:.4f} | {100 * row['gain'][d].mean:+.1f} %"
            for d in domains
        ]
        mean = fmean(row["gain"][d].mean for d in domains)
        lines.append(
            f"| {row['model']} | {row['seeds']} | {row['valid']:.4f} | {' | '.join(cells)} | {100 * mean:+.1f} % |"
        )
    return "NDCG@10, history masked; gain over the student alone, paired by seed.\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

"""The table of benchmarks/results/cold_items: python benchmarks/cold_items_report.py

Leave-one-out with a tenth of the items hidden from training, full catalogue with the new items in it, history masked;
Recall@10, mean and spread over seeds, nothing chosen on test.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev

FOLDER = Path("benchmarks/results/cold_items")
COLUMNS = (("new items", "cold"), ("others, before", "warm_before"), ("others, after", "warm_after"))


def main() -> None:
    lines = ["# Recall@10 of items that were hidden from training, and of the others beside them\n"]
    for path in sorted(FOLDER.glob("*.jsonl")):
        runs: dict[tuple[str, str], list[dict]] = defaultdict(list)
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            runs[entry["model"], entry["items_added"]].append(entry)
        first = next(iter(runs.values()))
        sizes = ", ".join(
            f"seed {run['seed']}: {run['hidden_items']} items, {run['cold_queries']} queries" for run in first
        )
        lines += [
            f"{path.stem} ({sizes})\n",
            f"| model | new items placed by | {' | '.join(n for n, _ in COLUMNS)} |",
        ]
        lines.append("|---|---|---|---|---|")
        for (model, way), entries in runs.items():
            cells = [show([run[key]["recall@10"] for run in entries if key in run]) for _, key in COLUMNS]
            lines.append(f"| {model} | {way} | {' | '.join(cells)} |")
        lines.append("")
    (FOLDER / "table.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


def show(values: list[float]) -> str:
    if not values:
        return "-"
    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()

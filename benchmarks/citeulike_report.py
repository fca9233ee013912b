"""The table of benchmarks/results/citeulike beside the published one: python benchmarks/citeulike_report.py

Leave-one-out (the split of the paper's repository), full ranking, what a user has left out; the last epoch, mean and
spread over seeds. Published: Topology Distillation (KDD'21), table 1; traced: the log that its repository ships, at
epoch 100.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, stdev

FOLDER = Path("benchmarks/results/citeulike")
PUBLISHED = {
    "mf": {"teacher": 0.3253, "student": 0.2347, "de": 0.2615, "ftd": 0.2624, "htd": 0.2803},
    "lightgcn": {"teacher": 0.3326, "student": 0.2512, "de": 0.2680, "ftd": 0.2542, "htd": 0.2847},
}
TRACED = {"mf": {"teacher": 0.3123, "student": 0.2276, "ftd": 0.2516, "htd": 0.2744}}


def main() -> None:
    lines = ["# CiteULike, student 20 wide, teacher 200 wide\n"]
    for path in sorted(FOLDER.glob("*.jsonl")):
        runs: dict[str, list[dict]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            runs.setdefault(entry["run"], []).append(entry)
        published, traced = PUBLISHED[path.stem], TRACED.get(path.stem, {})
        lines += [
            f"{path.stem}\n",
            "| run | seeds | valid Recall@50 | test Recall@50 | gain | published (gain) | traced (gain) | NDCG@50 |",
            "|---|---|---|---|---|---|---|---|",
        ]
        alone = {entry["seed"]: entry["metrics"]["test"]["recall@50"] for entry in runs["student"]}
        for run, entries in runs.items():
            valid, test, ndcg = (
                [entry["metrics"][part][name] for entry in entries]
                for part, name in (("valid", "recall@50"), ("test", "recall@50"), ("test", "ndcg@50"))
            )
            gains = [value / alone[e["seed"]] - 1 for value, e in zip(test, entries, strict=True) if e["seed"] in alone]
            method = run.split(" ")[0]
            cells = [show(valid), show(test), f"{fmean(gains):+.1%}" if gains else "", told(method, published)]
            lines.append(f"| {run} | {len(entries)} | {' | '.join(cells)} | {told(method, traced)} | {show(ndcg)} |")
        lines.append("")
    (FOLDER / "table.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


def told(method: str, numbers: dict[str, float]) -> str:
    """A number of others and its gain over their student."""
    return f"{numbers[method]:.4f} ({numbers[method] / numbers['student'] - 1:+.1%})" if method in numbers else ""


def show(values: list[float]) -> str:
    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()

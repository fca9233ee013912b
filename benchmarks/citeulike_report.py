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
    for kind in PUBLISHED:
        lines += [f"## {kind}\n", *reproduction(kind, entries_of(FOLDER / f"{kind}.jsonl")), ""]
        if found := entries_of(FOLDER / f"{kind}_search.jsonl"):
            lines += [f"## {kind}: what was tried\n", *search(found), ""]
    (FOLDER / "table.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


def entries_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def reproduction(kind: str, entries: list[dict]) -> list[str]:
    """A row for each run, beside the published one."""
    published, traced = PUBLISHED[kind], TRACED.get(kind, {})
    alone = {entry["seed"]: recall(entry, "test") for entry in entries if entry["run"] == "student"}
    lines = [
        "| run | seeds | valid Recall@50 | test Recall@50 | gain | published (gain) | traced (gain) | NDCG@50 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in dict.fromkeys(entry["run"] for entry in entries):
        same = [entry for entry in entries if entry["run"] == run]
        gains = [recall(entry, "test") / alone[entry["seed"]] - 1 for entry in same if entry["seed"] in alone]
        method = run.split(" ")[0]
        cells = [
            run,
            str(len(same)),
            show([recall(entry, "valid") for entry in same]),
            show([recall(entry, "test") for entry in same]),
            f"{fmean(gains):+.1%}" if gains else "",
            told(method, published),
            told(method, traced),
            show([entry["metrics"]["test"]["ndcg@50"] for entry in same]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def search(entries: list[dict]) -> list[str]:
    """One row for each run, best on valid first."""
    lines = ["| run | seed | epochs | learning rate | valid Recall@50 | test Recall@50 |", "|---|---|---|---|---|---|"]
    for entry in sorted(entries, key=lambda entry: -recall(entry, "valid")):
        cells = [entry["run"], entry["seed"], entry["epochs"], entry["learning_rate"]]
        cells += [show([recall(entry, part)]) for part in ("valid", "test")]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def recall(entry: dict, part: str) -> float:
    return entry["metrics"][part]["recall@50"]


def told(method: str, numbers: dict[str, float]) -> str:
    """A number of others and its gain over their student."""
    return f"{numbers[method]:.4f} ({numbers[method] / numbers['student'] - 1:+.1%})" if method in numbers else ""


def show(values: list[float]) -> str:
    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()

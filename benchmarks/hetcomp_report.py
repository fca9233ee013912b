"""The tables of benchmarks/results/hetcomp, and how much of the way to the ensemble a student goes.

    python benchmarks/hetcomp_report.py

Per-user means of Recall and NDCG over 60/20/20 sets (see hetcomp_data.py), mean and spread over seeds; settings are
those that were best on validation with seed 0. `gap closed` is (run - alone) / (ensemble - alone) of Recall@50 on test,
seed by seed; the ensemble is the consensus of the ranks of the six teachers that taught the run, by the law of
importance that is better on validation.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, stdev

from hetcomp import LAWS, RUNS
from hetcomp_data import FILES, KS
from heterogeneous_teachers import KINDS
from matplotlib.figure import Figure

FOLDER = Path("benchmarks/results/hetcomp")
METRICS = [f"{metric}@{k}" for k in KS for metric in ("recall", "ndcg")]


def main() -> None:
    lines = ["# HetComp: six unlike teachers, one small student", ""]
    for data in FILES:
        students = entries(FOLDER / f"{data}.jsonl")
        if not students:
            continue
        trained = entries(FOLDER / f"{data}_teachers.jsonl")
        teachers = {kind: chosen(trained, "kind", kind) for kind in KINDS}
        runs = {run: chosen(students, "run", run) for run in ("ensemble", *RUNS)}
        laws = {f"ensemble, {law}": by_law(students, law) for law in LAWS}
        width = runs["alone"][0]["width"]
        shared = {entry["teachers"] for run in RUNS for entry in runs[run] if taught_by(entry) != entry["seed"]}
        told = [f"All students have the teachers of seed {seed}." for seed in shared]
        told += [moments(teachers)] if any(moments_of(found) for found in teachers.values()) else []
        lines += [f"## {data}, student MF {width} wide", "", *(part for line in told for part in (line, ""))]
        lines += [*table(teachers | laws, runs), ""]
        figure(data, width, runs)
    (FOLDER / "tables.md").write_text("\n".join(lines), encoding="utf-8")
    print("\n".join(lines))


def moments(teachers: dict[str, list[dict]]) -> str:
    """Which shares of their final Recall@50 the first seed's teachers had at the moments before the last."""
    told = {kind: moments_of(found) for kind, found in teachers.items()}
    shares = [f"{kind} {', '.join(format(share, '.2f') for share in at)}" for kind, at in told.items() if at]
    missing = [kind for kind, at in told.items() if not at]
    also = f" (not noted for {', '.join(missing)})" if missing else ""
    return f"Moments before the last, by share of the final Recall@50 on valid: {'; '.join(shares)}{also}."


def moments_of(found: list[dict]) -> list[float]:
    return found[0].get("moments", []) if found else []


def entries(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def by_law(found: list[dict], law: str) -> list[dict]:
    """The ensembles of each seed by one law of importance; those noted without one are by the first."""
    return [one for one in found if one["run"] == "ensemble" and one["point"].get("law", LAWS[0]) == law]


def chosen(found: list[dict], key: str, name: str) -> list[dict]:
    """One entry for each seed: of several settings the one that is best on validation."""
    best: dict[int, dict] = {}
    for entry in found:
        if entry[key] == name and (entry["seed"] not in best or recall(entry, "valid") > recall(best[entry["seed"]])):
            best[entry["seed"]] = entry
    return [best[seed] for seed in sorted(best)]


def recall(entry: dict, part: str = "valid") -> float:
    return entry["metrics"][part]["recall@50"]


def table(teachers: dict[str, list[dict]], runs: dict[str, list[dict]]) -> list[str]:
    names = " | ".join(METRICS)
    lines = [f"| | seeds | {names} | gap closed | tried |", f"|---|---|{'---|' * len(METRICS)}---|---|"]
    shown = {f"teacher {name}" if name in KINDS else name: found for name, found in teachers.items()}
    for name, found in (shown | {run: found for run, found in runs.items() if run != "ensemble"}).items():
        if found:
            cells = [show([entry["metrics"]["test"][metric] for entry in found]) for metric in METRICS]
            closed = gaps(found, runs) if name in RUNS and name != "alone" else []
            cells += [show(closed, percent=True), settings(found)]
            lines.append(f"| {name} | {len(found)} | {' | '.join(cells)} |")
    return lines


def gaps(found: list[dict], runs: dict[str, list[dict]]) -> list[float]:
    """What share of the way from the student alone to its teachers' ensemble, of every seed that has all three."""
    alone, whole = ({entry["seed"]: recall(entry, "test") for entry in runs[name]} for name in ("alone", "ensemble"))
    return [
        (recall(entry, "test") - alone[seed]) / (whole[teachers] - alone[seed])
        for entry in found
        if (seed := entry["seed"]) in alone and (teachers := taught_by(entry)) in whole
    ]


def taught_by(entry: dict) -> int:
    """The seed of a student's teachers: its own, where nothing is noted."""
    return entry.get("teachers", entry["seed"])


def settings(found: list[dict]) -> str:
    told = found[0].get("point", {}).items()
    return ", ".join(f"{name} {value if isinstance(value, str) else format(value, 'g')}" for name, value in told)


def show(values: list[float], percent: bool = False) -> str:
    if not values:
        return ""
    spread = stdev(values) if len(values) > 1 else None
    if percent:
        return f"{fmean(values):.0%}" + (f" ± {spread:.0%}" if spread is not None else "")
    return f"{fmean(values):.4f}" + (f" ± {spread:.4f}" if spread is not None else "")


def figure(data: str, width: int, runs: dict[str, list[dict]]) -> None:
    """Recall@50 on validation as training goes on (seed 0), and the ensemble."""
    drawn = Figure(figsize=(7, 4), layout="constrained")
    axes = drawn.subplots()
    for run, found in runs.items():
        if found and "trace" in found[0]:
            epochs, values = zip(*((float(epoch), value) for epoch, value in found[0]["trace"].items()), strict=True)
            axes.plot(epochs, values, label=run, linewidth=2 if run == "hetcomp" else 1.2)
    if runs["ensemble"]:
        axes.axhline(recall(runs["ensemble"][0]), color="black", linestyle=":", label="ensemble of the six teachers")
    axes.set(xlabel="epoch", ylabel="Recall@50 on validation", title=f"{data}: MF {width} wide, seed 0")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    drawn.savefig(FOLDER / f"{data}.png", dpi=150)


if __name__ == "__main__":
    main()

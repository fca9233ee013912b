"""What a run on a stream says of itself: matrices, averages, slices and costs, as tables, a figure and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..evaluation.report import show
from ..evaluation.stream_matrix import StreamMatrix, matrix_table, over_seeds, stream_table
from ..figures.stream import stream_figure
from ..files.markdown import grid

SHOWN = 8  # runs that a figure tells apart
SLICES = {"new_users": "new users", "old_users": "known users", "new_items": "new items"}


def write_report(
    folder: Path,
    runs: Mapping[str, Sequence[StreamMatrix]],
    costs: Mapping[str, Sequence[Iterable[tuple[str, Mapping[str, Any]]]]],
    *,
    slices: Mapping[str, Mapping[str, Sequence[StreamMatrix]]] | None = None,
    heat: Sequence[str] | None = None,
    title: str | None = None,
) -> str:
    """Write `report.md`, `stream.json` and, where several blocks are told of, `stream.png`; returns the Markdown.

    Args:
        runs: by name, a matrix for each seed; ours first.
        costs: by name, for each block the stages with what they took (of one seed).
        slices: by slice (`new_users/recall@20`), its matrices of each run, of which the diagonal is told: how well a
            block's new users are served right after it.
        heat: whose matrices the figure shows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"# {title or 'A stream'}", stream_table(runs)]
    parts += [f"## {name}: a[k][i]\n\n{matrix_table(seeds)}" for name, seeds in runs.items() if name in (heat or runs)]
    if slices:
        parts.append("## What was new in each block, right after it\n\n" + slice_table(slices))
    parts += [f"## {name}: what it took\n\n{cost_table(blocks)}" for name, blocks in costs.items()]
    text = "\n".join(parts)
    (folder / "report.md").write_text(text, encoding="utf-8")
    told = {name: [json.loads(matrix.to_json()) for matrix in seeds] for name, seeds in runs.items()}
    (folder / "stream.json").write_text(json.dumps(told, indent=1), encoding="utf-8")
    if len(next(iter(runs.values()))[0]) > 1 and find_spec("matplotlib"):
        drawn = dict(list(runs.items())[:SHOWN])
        note = f"The first {SHOWN} of {len(runs)} runs; report.md has all." if len(runs) > SHOWN else ""
        stream_figure(drawn, folder / "stream.png", heat=heat, title=title, note=note)
    return text


def slice_table(slices: Mapping[str, Mapping[str, Sequence[StreamMatrix]]]) -> str:
    """The diagonals: for each run and slice, the metric on block k of the model after block k, a mean over seeds."""
    rows, blocks = [], 0
    for metric, runs in slices.items():
        for name, seeds in runs.items():
            blocks = max(blocks, len(seeds[0]))
            values = [[matrix.rows[k][k] for matrix in seeds] for k in range(1, len(seeds[0]))]
            rows.append([name, metric, *(show(over_seeds(value)) for value in values)])
    return grid(["run", "slice", *(f"D{k}" for k in range(1, blocks))], rows, text_columns=2) + "\n"


def cost_table(blocks: Sequence[Iterable[tuple[str, Mapping[str, Any]]]]) -> str:
    """A row for each stage of each block: seconds, memory held by then, what was written."""
    rows = []
    for k, stages in enumerate(blocks):
        for stage, cost in stages:
            rows.append(
                [
                    f"D{k}",
                    stage,
                    f"{cost['seconds']:.1f}",
                    f"{cost['cpu_seconds']:.1f}",
                    f"{cost['peak_memory_mb']:,}",
                    f"{cost['bytes_written'] / 1e6:.2f}",
                    str(cost.get("epochs", "")),
                ]
            )
    header = ["block", "stage", "seconds", "CPU seconds", "peak memory so far, MB", "written, MB", "epochs"]
    return grid(header, rows, text_columns=2) + "\n"

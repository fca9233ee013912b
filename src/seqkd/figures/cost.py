"""Accuracy against what serving costs, drawn: latency on the left, size on the right, one row for each domain."""

from __future__ import annotations

import os
from collections.abc import Sequence
from textwrap import fill
from typing import Any

from ..errors import DataError
from ..evaluation.cost import HOW
from ..evaluation.report import (
    by_protocol,
    domain_name,
    percent,
    pretty,
    protocol_title,
    relative_gain,
    seeds_line,
    setting,
)
from ..evaluation.results import Result, Spread, Summary
from ..files.markdown import line
from .labels import Label, place_labels
from .style import FAINT, INK, bare, new_figure, verbatim

try:
    from matplotlib.ticker import LogLocator
except ImportError:  # an extra: the rest of seqkd does without
    LogLocator = None  # type: ignore[misc, assignment]

COLOURS = {"teacher": "#6b7fa3", "student": "#d9822b", "distilled": "#1f8a5b"}
MARKERS = {"teacher": "s", "student": "o", "distilled": "D"}


def cost_figure(results: Sequence[Result], path: str | os.PathLike, metric: str = "ndcg@10") -> None:
    """Save a figure of `metric` against ms per user and against megabytes, with error bars over seeds.

    Args:
        results: of one split, protocol and history.
        path: its ending names the format: .png, .svg or .pdf.

    Raises:
        ConfigError: matplotlib is not installed.
        DataError: no results, several protocols, or `metric` was not measured.
    """
    tables = by_protocol(results)
    if len(tables) != 1:
        raise DataError(
            f"a figure shows one split, protocol and history; these results have {len(tables)}. Select first."
        )
    rows = tables[0]
    missing = [row.first.model for row in rows if row.spread(metric) is None]
    if missing:
        raise DataError(f"{metric} was not measured for {missing}.")
    domains = list(dict.fromkeys((row.first.domain, row.first.data) for row in rows))
    drawing = new_figure(10.5, 1.6 + 3.7 * len(domains))
    panels = drawing.subplots(len(domains), 2, sharey="row", squeeze=False)
    labels = []
    for (latency, size), domain in zip(panels, domains, strict=True):
        here = [row for row in rows if (row.first.domain, row.first.data) == domain]
        times = [row.ms_per_user for row in here]
        labels.append(
            (latency, _panel(latency, here, metric, [time.mean for time in times], [time.std for time in times]))
        )
        labels.append((size, _panel(size, here, metric, [row.megabytes for row in here], [0.0] * len(here))))
        latency.set(xlabel="ms per user", ylabel=pretty(metric))
        size.set(xlabel="size of the saved weights, MB")
        latency.set_title(verbatim(domain_name(here[0].first)), loc="left", fontweight="bold", color=INK)
        size.set_title(_gain(here, metric), loc="right", color=COLOURS["distilled"])
    drawing.suptitle(_title(rows[0].first, metric), x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    drawing.supxlabel(_caption(rows), x=0.01, ha="left", fontsize=8.5, color=FAINT)
    handles, names = panels[0][0].get_legend_handles_labels()
    legend = {name: handle[0] for name, handle in zip(names, handles, strict=True)}  # the marker without its bars
    drawing.legend(legend.values(), legend.keys(), loc="outside upper right", ncols=3, frameon=False, fontsize=9)
    drawing.draw_without_rendering()  # labels are placed where points and axes have found theirs
    for axes, texts in labels:
        place_labels(axes, texts)
    drawing.savefig(path)


def _panel(
    axes: Any, rows: Sequence[Summary], metric: str, costs: Sequence[float], errors: Sequence[float]
) -> list[Label]:
    """Draw the points of one panel; their labels are placed later."""
    labels = []
    for row, cost, error in zip(rows, costs, errors, strict=True):
        role, height = row.first.role, row.spread(metric) or Spread(0.0, 0.0, 1)
        axes.errorbar(
            cost,
            height.mean,
            xerr=error or None,
            yerr=height.std or None,
            fmt=MARKERS[role],
            color=COLOURS[role],
            markersize=7.5,
            elinewidth=1.6,
            label="student alone" if role == "student" else role,
        )
        labels.append(Label(verbatim(row.first.model), COLOURS[role], cost, height.mean, error, height.std))
    gained = {label.colour: (label.x, label.y) for label in labels if label.colour != COLOURS["teacher"]}
    if len(gained) == 2 and len([row for row in rows if row.first.role != "teacher"]) == 2:
        alone, taught = gained[COLOURS["student"]], gained[COLOURS["distilled"]]
        arrow = {"arrowstyle": "-|>", "color": COLOURS["distilled"], "alpha": 0.5, "shrinkA": 9, "shrinkB": 9}
        axes.annotate("", taught, alone, arrowprops=arrow)
    if min(costs) > 0 and max(costs) / min(costs) > 4:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
    axes.margins(0.2, 0.2)
    bare(axes, grid="both")
    return labels


def _gain(rows: Sequence[Summary], metric: str) -> str:
    gains = [
        relative_gain(taught, alone, metric)
        for taught in rows
        for alone in rows
        if (taught.first.role, alone.first.role) == ("distilled", "student")
    ]
    return f"distilled against alone: {percent(gains[0])}" if len(gains) == 1 and gains[0] else ""


def _title(result: Result, metric: str) -> str:
    asked = f"{result.split}, {protocol_title(result)}, history {result.history}"
    return f"{pretty(metric)} against the cost of serving\n{asked}"


def _caption(rows: Sequence[Summary]) -> str:
    data = {domain_name(row.first): line(row.first.data) for row in rows}
    sentences = [
        setting(rows[0].first),
        "Data: " + "; ".join(f"{name}: {what}" for name, what in data.items()) + ".",
        seeds_line(rows),
        f"Time: {HOW}.",
    ]
    return fill(verbatim(" ".join(sentences)), 165)

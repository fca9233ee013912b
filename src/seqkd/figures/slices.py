"""For whom models work, drawn: a metric by the length of the history on the left, by item frequency on the right."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import DataError
from ..evaluation.report import pretty
from ..evaluation.slices import ITEM_FREQUENCY, Slice, SliceRow, compare
from .style import FAINT, INK, SERIES, bare, new_figure, verbatim

AXIS = {ITEM_FREQUENCY: "times the target was in training"}
MARKERS = "osD^vPX*"


def slice_figure(
    models: Mapping[str, Sequence[Sequence[Slice]]],
    path: str | os.PathLike,
    metric: str = "ndcg@10",
    title: str | None = None,
) -> None:
    """Save a figure of `metric` in each bin, a line for each model, with error bars over seeds.

    Args:
        models: by name, for each seed its `slices`; up to 8.
        path: its ending names the format: .png, .svg or .pdf.
        title: say the domain and protocol here.

    Raises:
        ConfigError: matplotlib is not installed.
        DataError: see `compare`; or there are more models than colours.
    """
    if len(models) > len(SERIES):
        raise DataError(f"{len(models)} models are too many to tell apart, at most {len(SERIES)}. Select first.")
    rows = compare(models, metric)
    kinds = list(dict.fromkeys(row.kind for row in rows))
    drawing = new_figure(12.5, 4.6)
    panels = drawing.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        _panel(axes, [row for row in rows if row.kind == kind])
        axes.set_xlabel(AXIS.get(kind, kind))
    panels[0].set_ylabel(pretty(metric))
    panels[0].set_ylim(bottom=0)
    heading = verbatim(title) if title else f"{pretty(metric)} by {' and by '.join(kinds)}"
    drawing.suptitle(heading, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    seeds = {len(runs) for runs in models.values()}
    bars = "Bars: standard deviation over seeds. " if max(seeds) > 1 else ""
    caption = f"{bars}Below each bin: the queries it holds. A bin without queries has no point."
    drawing.supxlabel(caption, x=0.01, ha="left", fontsize=8.5, color=FAINT)
    handles, names = panels[0].get_legend_handles_labels()
    drawing.legend(handles, names, loc="outside right center", frameon=False, fontsize=9.5)
    drawing.savefig(path)


def _panel(axes: Any, rows: Sequence[SliceRow]) -> None:
    """The lines of all models over the bins of one kind, a little apart, so that error bars do not cover each other."""
    names = list(rows[0].spreads)
    for place, name in enumerate(names):
        aside = 0.07 * (place - (len(names) - 1) / 2)
        points = [(x + aside, spread) for x, row in enumerate(rows) if (spread := row.spreads[name]) is not None]
        axes.errorbar(
            [x for x, _ in points],
            [spread.mean for _, spread in points],
            yerr=[spread.std for _, spread in points] if any(spread.seeds > 1 for _, spread in points) else None,
            fmt=f"-{MARKERS[place]}",
            color=SERIES[place],
            linewidth=1.6,
            markersize=6,
            elinewidth=1.3,
            label=verbatim(name),
        )
    axes.set_xticks(range(len(rows)), [f"{row.label}\n{row.num_queries:,}" for row in rows])
    axes.margins(x=0.08)
    bare(axes, grid="y")


__all__ = ["slice_figure"]

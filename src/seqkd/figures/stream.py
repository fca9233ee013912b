"""A stream drawn: a[k][i] of some runs as heat maps with their numbers, and below the H-mean of all over the blocks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np

from ..errors import DataError
from ..evaluation.report import pretty
from ..evaluation.stream_matrix import StreamMatrix, check_runs, over_seeds, seeds_of
from .style import FAINT, INK, SERIES, bare, new_figure, verbatim

MARKERS = "osD^vPX*"
DASHES = ("-", "--", "-.", ":")
SHADES = "Blues"  # lightness falls all along, so that it reads in grey, too
LIGHTEST, DARKEST = 0.08, 0.72  # of the colour map: the lightest cell differs from paper, the darkest bears numbers
WHITE_ON = 0.58  # from this shade on white numbers read better than ink


def stream_figure(
    runs: Mapping[str, Sequence[StreamMatrix]],
    path: str | os.PathLike,
    *,
    heat: Sequence[str] | None = None,
    first: int = 0,
    title: str | None = None,
    note: str = "",
) -> None:
    """Save a figure with a heat map for each run in `heat` and a line of the H-mean for every run.

    Args:
        runs: by name, a matrix for each seed, ours and baselines; up to 8, drawn in this order.
        path: its ending names the format: .png, .svg or .pdf.
        heat: whose a[k][i] is shown, one to three names; the first two runs otherwise. They share one scale.
        first: the first block that the H-mean counts: 0 with the base block, 1 without.
        title: say the data and the models here. note: ends the caption.

    Raises:
        ConfigError: matplotlib is not installed.
        DataError: see `check_runs`; or there are more runs than colours, no run of a name in `heat`, or no block that
            counts.
    """
    blocks = check_runs(runs)
    shown = list(runs)[:2] if heat is None else list(heat)
    if len(runs) > len(SERIES):
        raise DataError(f"{len(runs)} runs are too many to tell apart, at most {len(SERIES)}. Select first.")
    if not set(shown) <= set(runs) or not 1 <= len(shown) <= 3:
        raise DataError(f"heat must name one to three of the runs {list(runs)}, got {shown}.")
    if not 0 <= first < blocks:
        raise DataError(f"there are blocks 0 to {blocks - 1}, so the H-mean cannot count from block {first} on.")
    metric = pretty(runs[shown[0]][0].metric)
    across = max(0.62 * blocks + 1.1, 3.4)  # inches of a heat map
    width = max(len(shown) * across + 1.0, 9.0)
    drawing = new_figure(width, 0.55 * blocks + 6.0)
    above, below = drawing.subfigures(2, 1, height_ratios=[0.55 * blocks + 1.5, 4.2])
    _heat_maps(above, {name: runs[name] for name in shown}, metric)
    _h_means(below, runs, first, metric)
    heading = verbatim(title) if title else f"{metric} on a stream of {blocks} blocks"
    drawing.suptitle(heading, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    seeds = seeds_of(runs)
    counted = "all blocks" if first == 0 else f"blocks from D{first} on"
    caption = (
        f"Cells: {metric} on a block after another was learned, means over seeds. H-mean: of the "
        f"learning average and the retained average over {counted}. {seeds[0].upper()}{seeds[1:]}"
        f"{' (bars)' if any(len(of) > 1 for of in runs.values()) else ''}. {note}"
    )
    drawing.supxlabel(fill(caption, int(15 * width)), x=0.01, ha="left", fontsize=8.5, color=FAINT)
    drawing.savefig(path)


def _heat_maps(drawing: Any, runs: Mapping[str, Sequence[StreamMatrix]], metric: str) -> None:
    """Side by side with one scale: row k after block k, column i the block tested."""
    cells = {name: _cells(seeds) for name, seeds in runs.items()}
    low, high = np.nanmin([*cells.values()]), np.nanmax([*cells.values()])
    panels = drawing.subplots(1, len(cells), sharey=True, squeeze=False)[0]
    for axes, (name, means) in zip(panels, cells.items(), strict=True):
        _heat_map(axes, means, LIGHTEST + (DARKEST - LIGHTEST) * (means - low) / ((high - low) or 1.0))
        axes.set_title(verbatim(name), loc="left", fontsize=10.5, color=INK)
        axes.set_xlabel(f"{metric} on block")
    panels[0].set_ylabel("after block")


def _cells(seeds: Sequence[StreamMatrix]) -> np.ndarray:
    """Means over seeds, `(blocks, blocks)`; NaN above the diagonal and where a seed has no number."""
    means = np.full((len(seeds[0]), len(seeds[0])), np.nan)
    for k, i in zip(*np.tril_indices(len(means)), strict=True):
        spread = over_seeds([matrix.rows[k][i] for matrix in seeds])
        means[k, i] = np.nan if spread is None else spread.mean
    return means


def _heat_map(axes: Any, means: np.ndarray, shades: np.ndarray) -> None:
    blocks = len(means)
    axes.imshow(shades, cmap=SHADES, vmin=0, vmax=1, aspect="auto")
    for k, i in zip(*np.tril_indices(blocks), strict=True):
        words = "-" if np.isnan(means[k, i]) else f"{means[k, i]:.4f}".removeprefix("0")
        ink = "white" if shades[k, i] > WHITE_ON else INK
        axes.text(i, k, words, ha="center", va="center", fontsize=9, color=ink)
    for ticks in (axes.set_xticks, axes.set_yticks):
        ticks(range(blocks), [f"D{i}" for i in range(blocks)])
        ticks(np.arange(blocks - 1) + 0.5, minor=True)  # lines of paper between cells
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def _h_means(drawing: Any, runs: Mapping[str, Sequence[StreamMatrix]], first: int, metric: str) -> None:
    """A line for each run, a little apart, so that error bars do not cover each other."""
    axes = drawing.subplots()
    after = range(first, len(next(iter(runs.values()))[0]))
    for place, (name, seeds) in enumerate(runs.items()):
        aside = 0.06 * (place - (len(runs) - 1) / 2)
        spreads = {k: over_seeds([matrix.h_mean(k, first) for matrix in seeds]) for k in after}
        points = [(k + aside, spread) for k, spread in spreads.items() if spread is not None]
        axes.errorbar(
            [x for x, _ in points],
            [spread.mean for _, spread in points],
            yerr=[spread.std for _, spread in points] if len(seeds) > 1 else None,
            marker=MARKERS[place],
            linestyle=DASHES[place % len(DASHES)],
            color=SERIES[place],
            linewidth=1.6,
            markersize=5.5,
            elinewidth=1.3,
            label=verbatim(name),
        )
    axes.set_xticks(after, [f"D{k}" for k in after])
    axes.set_xlabel("after block")
    axes.set_ylabel(f"H-mean of {metric}")
    bare(axes, grid="y")
    handles, names = axes.get_legend_handles_labels()
    lines = [handle[0] for handle in handles]  # without bars, which cover the marker
    drawing.legend(lines, names, loc="outside right center", frameon=False, fontsize=9.5)


__all__ = ["stream_figure"]

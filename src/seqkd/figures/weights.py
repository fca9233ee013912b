"""How the teachers of a student were weighed, drawn: one bar for each statistic, shared out among the teachers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from textwrap import fill
from typing import Any

from ..errors import DataError
from ..evaluation.report import WEIGHED, domain_name, seeds_line
from ..evaluation.results import Result, Spread, Summary, summarise
from ..teaching.teacher_weights import STATISTICS
from .style import FAINT, INK, SERIES, bare, new_figure, verbatim


def weights_figure(results: Sequence[Result], path: str | os.PathLike) -> None:
    """Save a figure with a panel for each student and domain; a row is a student, a column a domain.

    Args:
        results: those without `teacher_weights` are left out; a student that was measured several ways is drawn once.
        path: its ending names the format: .png, .svg or .pdf.

    Raises:
        ConfigError: matplotlib is not installed.
        DataError: no result tells how teachers were weighed, or there are more teachers than colours.
    """
    taught: dict[tuple[str, str], Summary] = {}
    for row in summarise(results):
        if row.first.teacher_weights:
            taught.setdefault((row.first.model, domain_name(row.first)), row)
    if not taught:
        raise DataError(
            "no result tells how teachers were weighed. Set Result.teacher_weights with teacher_weights_of; a student "
            "of one teacher has none."
        )
    students, domains = (list(dict.fromkeys(names)) for names in zip(*taught, strict=True))
    teachers = list(dict.fromkeys(name for row in taught.values() for name in row.first.teacher_weights))
    if len(teachers) > len(SERIES):
        raise DataError(f"{len(teachers)} teachers are too many to tell apart, at most {len(SERIES)}. Select first.")
    colours = dict(zip(teachers, SERIES, strict=False))
    width = max(5.2 * len(domains), 8.0)
    drawing = new_figure(width, 1.5 + 2.0 * len(students))
    panels = drawing.subplots(len(students), len(domains), squeeze=False)
    shares = []
    for line, student in zip(panels, students, strict=True):
        for axes, domain in zip(line, domains, strict=True):
            if (student, domain) in taught:
                shares.append((axes, _panel(axes, taught[student, domain].teacher_weights(), colours)))
                axes.set_title(verbatim(f"{student}, {domain}"), loc="left", fontsize=10.5, color=INK)
            else:
                axes.set_axis_off()
    drawing.suptitle("How the teachers were weighed", x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    caption = f"{WEIGHED[0].upper()}{WEIGHED[1:]}. {seeds_line([*taught.values()])}"
    drawing.supxlabel(fill(caption, int(15.5 * width)), x=0.01, ha="left", fontsize=8.5, color=FAINT)
    legend = {verbatim(name): colour for name, colour in colours.items()}
    handles = [panels[0][0].barh(0, 0, color=colour) for colour in legend.values()]
    columns = max(1, int((width - 3.6) / (0.6 + 0.08 * max(map(len, legend)))))  # what the title leaves free, in inches
    drawing.legend(handles, legend, loc="outside upper right", ncols=columns, frameon=False, fontsize=9.5)
    drawing.draw_without_rendering()  # what fits into a segment is known where panels have found their size
    for axes, segments in shares:
        _write(axes, segments)
    drawing.savefig(path)


def _panel(axes: Any, weights: dict[str, dict[str, Spread]], colours: dict[str, str]) -> list[tuple[Any, Spread]]:
    """Draw the bars of one student; returns each segment with the number that belongs into it."""
    segments: list[tuple[Any, Spread]] = []
    left = [0.0] * len(STATISTICS)
    for teacher, told in weights.items():
        widths = [told[name].mean for name in STATISTICS]
        bars = axes.barh(STATISTICS, widths, left=left, color=colours[teacher], height=0.72, edgecolor="white")
        segments += zip(bars, (told[name] for name in STATISTICS), strict=True)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set(xlim=(0, 1))
    axes.invert_yaxis()
    axes.xaxis.set_visible(False)
    axes.tick_params(left=False)
    bare(axes)
    axes.spines[["left", "bottom"]].set_visible(False)
    return segments


def _write(axes: Any, segments: Sequence[tuple[Any, Spread]]) -> None:
    """Put each number into its segment, with its spread if there is room, or leave it to the table."""
    for bar, spread in segments:
        room = bar.get_window_extent()
        words = [f"{spread.mean:.2f} ± {spread.std:.2f}"] if spread.seeds > 1 else []
        for number in (*words, f"{spread.mean:.2f}"):
            middle = (bar.get_x() + bar.get_width() / 2, bar.get_y() + bar.get_height() / 2)
            text = axes.annotate(number, middle, ha="center", va="center", fontsize=9, color=_ink_on(bar))
            if text.get_window_extent().width + 8 <= room.width:
                break
            text.remove()


def _ink_on(bar: Any) -> str:
    """White on dark colours, ink on light ones."""
    red, green, blue, _ = bar.get_facecolor()
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.55 else "white"


__all__ = ["weights_figure"]

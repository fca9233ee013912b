"""Where the names of points stand in a panel: beside their point, over nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

# Where a label may stand, from its point, in points: the first place that covers nothing is taken.
PLACES = [
    (x, y)
    for far in (9, 20, 33, 48)
    for x, y in ((far, 0), (far, far), (far, -far), (0, far), (0, -far), (-far, 0), (-far, far), (-far, -far))
]


class Label(NamedTuple):
    """A name to be written beside its point `(x, y)` with error bars `dx`, `dy`."""

    text: str
    colour: str
    x: float
    y: float
    dx: float
    dy: float


def place_labels(axes: Any, labels: Sequence[Label]) -> None:
    """Put each label where it covers neither a point nor its error bars, nor another label, nor leaves the panel."""
    taken = []
    for label in labels:
        corners = [(label.x - label.dx, label.y - label.dy), (label.x + label.dx, label.y + label.dy)]
        (left, low), (right, high) = axes.transData.transform(corners)
        taken.append((left - 9, low - 9, right + 9, high + 9))
    panel = axes.get_window_extent()
    for label in labels:
        best = None
        for across, up in PLACES:
            text = axes.annotate(
                label.text,
                (label.x, label.y),
                (across, up),
                textcoords="offset points",
                ha="left" if across > 0 else "right" if across < 0 else "center",
                va="bottom" if up > 0 else "top" if up < 0 else "center",
                fontsize=9,
                color=label.colour,
            )
            box = text.get_window_extent()
            bounds = (box.x0, box.y0, box.x1, box.y1)
            covered = sum(overlap(bounds, other) for other in taken)
            outside = overlap(bounds, bounds) - overlap(bounds, (panel.x0, panel.y0, panel.x1, panel.y1))
            if best is None or covered + outside < best[0]:
                if best is not None:
                    best[1].remove()
                best = (covered + outside, text, bounds, (across, up))
            else:
                text.remove()
            if best[0] == 0:
                break
        if best is not None:
            taken.append(best[2])
            if max(map(abs, best[3])) > 12:  # drawn last: a label with its line would be as large as both
                line = {"arrowstyle": "-", "color": "#c8c8c8", "linewidth": 0.8, "shrinkA": 0, "shrinkB": 5}
                axes.annotate("", (label.x, label.y), best[3], textcoords="offset points", arrowprops=line)


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Area that two boxes (left, low, right, high) share."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))

"""What all figures share: matplotlib where it is installed, colours of print and of series, text as it is."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError
from ..files.markdown import line

try:
    from matplotlib.figure import Figure
except ImportError:  # an extra: the rest of seqkd does without
    Figure = None  # type: ignore[misc, assignment]

INK, FAINT, GRID = "#2b2b2b", "#8a8a8a", "#e6e6e6"
SERIES = ("#4f6d9a", "#dc9a4a", "#3f9270", "#b0668f", "#8c8c8c", "#7a5c3e", "#58a9c4", "#c4bb52")


def new_figure(width: float, height: float) -> Any:
    """An empty figure, in inches.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    if Figure is None:
        raise ConfigError('drawing needs matplotlib. Install it with: pip install "seqkd[plots]"')
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def verbatim(words: str) -> str:
    """Text as it is: a dollar sign would start a formula."""
    return line(words).replace("$", r"\$")


def bare(axes: Any, grid: str | None = None) -> None:
    """No frame above and to the right; a faint grid behind what is drawn, along `x`, `y` or `both`."""
    if grid:
        axes.grid(color=GRID, linewidth=0.8, axis=grid)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)

"""Words from outside (item names, domains, descriptions) as Markdown that is text and nothing else."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

# Control characters and the marks that turn the direction of text: unseen, they can show other words than are there.
INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")


def line(text: Any) -> str:
    """One line of visible text, encodable as UTF-8."""
    encodable = str(text).encode("utf-8", "replace").decode("utf-8")
    return " ".join(INVISIBLE.sub(" ", encodable).split())


def plain(text: Any) -> str:
    """One line that neither HTML nor Markdown reads as anything but text."""
    entities = html.escape(line(text)).replace("{", "&#123;").replace("}", "&#125;")  # no HTML, no template
    escaped = re.sub(r"([\\`*_\[\]|~$]|(?<!&)#)", r"\\\1", entities)
    return re.sub(r"^(\d*)([-+=.)])(?!\w)", r"\1\\\2", escaped)  # no list, heading or rule may start here


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """A Markdown table that also reads well as plain text: the first `text_columns` to the left, numbers to the right.

    A `|` in a cell is escaped here; whatever else a cell may hold must be escaped before.
    """
    cells = [[re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * width if i < text_columns else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines = []
    for row in (cells[0], rule, *cells[1:]):
        places = enumerate(zip(row, widths, strict=True))
        lines.append(
            " | ".join(cell.ljust(width) if i < text_columns else cell.rjust(width) for i, (cell, width) in places)
        )
    return "\n".join(f"| {line} |" for line in lines)

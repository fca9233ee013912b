"""Row k of the matrices a[k][i], as a file of each block."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path

from ..errors import ConfigError
from ..evaluation.stream_matrix import StreamMatrix

FILE_NAME = "metrics.json"


def write_metrics(folder: Path, told: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """For each model, metrics on every block so far; null where there was nobody to ask."""
    rows = {
        name: [{key: value if isfinite(value) else None for key, value in row.items()} for row in metrics]
        for name, metrics in told.items()
    }
    (folder / FILE_NAME).write_text(json.dumps(rows, allow_nan=False), encoding="utf-8")


def matrices(folders: Sequence[Path], metric: str) -> dict[str, StreamMatrix]:
    """For each model the matrix of a metric, from the folders to which `write_metrics` wrote, one of each block.

    Raises:
        ConfigError: it was not measured.
    """
    found: dict[str, StreamMatrix] = {}
    known: set[str] = set()
    for folder in folders:
        for name, rows in json.loads((folder / FILE_NAME).read_text(encoding="utf-8")).items():
            known |= set(rows[0])
            if metric not in rows[0]:  # slices of an ensemble
                continue
            values = [float("nan") if row[metric] is None else row[metric] for row in rows]
            found.setdefault(name, StreamMatrix(metric, [])).add(values)
    if folders and not found:
        raise ConfigError(f"{metric!r} was not measured; there are {sorted(known)}.")
    return found

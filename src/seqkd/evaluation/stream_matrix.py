"""What a stream leaves behind: the matrix a[k][i] over all blocks, with LA, RA and H, and tables of it.

a[k][i] is a metric on block i of the model after block k. The learning average LA (its diagonal) says how well new
blocks are learned, the retained average RA (its last row) how well old ones are kept, and H is their harmonic mean
(Lee et al., CCD, KDD 2024; the arithmetic is that of the same authors' CSTRec, WSDM 2026).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from ..errors import DataError
from ..files.markdown import grid, line
from .report import pretty, show
from .results import Spread


@dataclass
class StreamMatrix:
    """a[k][i] of one model and seed: `rows[k][i]` is the metric on block i of the model after block k, i <= k.

    All summaries after block k take `first`, the first block that counts: 0 with the base block, 1 without. They are
    NaN where there is nothing to average, and nothing is rounded.

    Args:
        metric: e.g. "recall@20".
        rows: row k holds k+1 numbers; NaN where a block could not be measured.

    Raises:
        DataError: a row has another length or holds an infinite number.
    """

    metric: str
    rows: list[list[float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        given, self.rows = self.rows, []
        for row in given:
            self.add(row)

    def __len__(self) -> int:
        """Blocks so far."""
        return len(self.rows)

    def add(self, values: Sequence[float]) -> None:
        """Row k of the next block k: the metric on blocks 0 to k."""
        row = [float(value) for value in values]
        if len(row) != len(self) + 1:
            raise DataError(
                f"after block {len(self)} a model is measured on blocks 0 to {len(self)}, {len(self) + 1} numbers, got "
                f"{len(row)}."
            )
        if any(map(math.isinf, row)):
            raise DataError(f"{self.metric} after block {len(self)} is not finite: {row}. Find out why.")
        self.rows.append(row)

    def la(self, k: int, first: int = 0) -> float:
        """Learning average: the mean of a[i][i] for i from `first` to k."""
        self._check(k, first)
        return _mean([self.rows[i][i] for i in range(first, k + 1)])

    def ra(self, k: int, first: int = 0, current: bool = True) -> float:
        """Retained average: the mean of a[k][i] for i from `first` to k, or to k-1 where `current` is false."""
        self._check(k, first)
        return _mean(self.rows[k][first : k + current])

    def h_mean(self, k: int, first: int = 0, current: bool = True) -> float:
        """Harmonic mean of `la` and `ra`; 0 where both are."""
        la, ra = self.la(k, first), self.ra(k, first, current)
        return 2 * la * ra / (la + ra) if la + ra else 0.0

    def to_json(self) -> str:
        rows = [[None if math.isnan(value) else value for value in row] for row in self.rows]
        return json.dumps({"metric": self.metric, "rows": rows}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> StreamMatrix:
        """Raises DataError: the text is not one of `to_json`."""
        try:
            content = json.loads(text)
            rows = [[math.nan if value is None else value for value in row] for row in content["rows"]]
            return cls(str(content["metric"]), rows)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"this is no stream matrix ({error}). Write it with StreamMatrix.to_json.") from error

    def _check(self, k: int, first: int) -> None:
        if not 0 <= k < len(self) or first < 0:
            raise DataError(
                f"there are blocks 0 to {len(self) - 1}, but block {k} was asked for, counted from {first}."
            )


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


# ---- several seeds and runs -----------------------------------------------------------------------------------------


def over_seeds(values: Sequence[float]) -> Spread | None:
    """Mean and sample standard deviation; None where a seed has no number."""
    return None if any(map(math.isnan, values)) else Spread.of(values)


def matrix_table(seeds: Sequence[StreamMatrix]) -> str:
    """A Markdown table of a[k][i]: a row after each block, a column for each block that is tested.

    Raises:
        DataError: no seed, or seeds of other metrics or blocks.
    """
    blocks = check_runs({"this run": seeds})
    header = [pretty(seeds[0].metric), *(f"D{i}" for i in range(blocks))]
    rows = []
    for k in range(blocks):
        cells = [show(over_seeds([matrix.rows[k][i] for matrix in seeds])) for i in range(k + 1)]
        rows.append([f"after D{k}", *cells, *[""] * (blocks - k - 1)])
    return grid(header, rows) + "\n"


def stream_table(runs: Mapping[str, Sequence[StreamMatrix]], current: bool = True) -> str:
    """Markdown tables of LA, RA and H after each block, with the base block and without it.

    Args:
        runs: by name, a matrix for each seed; mean ± sample standard deviation over them.
        current: whether the retained average counts the block that was just learned.

    Raises:
        DataError: no run or seed, or matrices of other metrics or blocks.
    """
    blocks = check_runs(runs)
    retained = "RA and H count" if current else "RA and H do not count"
    parts = [f"{pretty(_metric(runs))} after each block, {seeds_of(runs)}; {retained} the block that was just learned."]
    for first, told in ((0, "With the base block (B = 0):"), (1, "Without the base block (B = 1):")):
        if first < blocks:
            header = ["run", "", *(f"D{k}" for k in range(first, blocks))]
            rows = [row for name, seeds in runs.items() for row in _summary_rows(line(name), seeds, first, current)]
            parts += [told, grid(header, rows, text_columns=2)]
    return "\n\n".join(parts) + "\n"


def _summary_rows(name: str, seeds: Sequence[StreamMatrix], first: int, current: bool) -> list[list[str]]:
    after = range(first, len(seeds[0]))
    summaries = {
        "LA": [[matrix.la(k, first) for matrix in seeds] for k in after],
        "RA": [[matrix.ra(k, first, current) for matrix in seeds] for k in after],
        "H": [[matrix.h_mean(k, first, current) for matrix in seeds] for k in after],
    }
    return [[name, of, *(show(over_seeds(values)) for values in told)] for of, told in summaries.items()]


def _metric(runs: Mapping[str, Sequence[StreamMatrix]]) -> str:
    return next(iter(runs.values()))[0].metric


def seeds_of(runs: Mapping[str, Sequence[Any]]) -> str:
    """Over how many seeds means are, in words."""
    few, many = min(map(len, runs.values())), max(map(len, runs.values()))
    if many == 1:
        return "one seed, so the spread is not known"
    return f"mean ± standard deviation over {many if few == many else f'{few} to {many}'} seeds"


def check_runs(runs: Mapping[str, Sequence[StreamMatrix]]) -> int:
    """The number of blocks that all matrices have.

    Raises:
        DataError: no run or seed, or matrices of other metrics or blocks.
    """
    if not runs or not all(runs.values()):
        raise DataError(
            f"each run needs the matrix of one seed at least, got { ({n: len(s) for n, s in runs.items()}) }."
        )
    first = next(iter(runs.values()))[0]
    for name, seeds in runs.items():
        for matrix in seeds:
            if (matrix.metric, len(matrix)) != (first.metric, len(first)) or not len(matrix):
                raise DataError(
                    f"{name!r} has {matrix.metric} of {len(matrix)} blocks, another run or seed {first.metric} of "
                    f"{len(first)}. Compare one metric over the same blocks."
                )
    return len(first)

"""For whom a model works: its metrics by the length of the history and by how often the target was in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ConfigError, DataError
from ..files.markdown import grid, line
from .ranks import Ranks
from .report import pretty, show
from .results import Spread

HISTORY_LENGTH, ITEM_FREQUENCY = "history length", "item frequency"


@dataclass(frozen=True)
class Slice:
    """The queries of one bin, and how well they were answered.

    Args:
        kind: what was cut by: `history length` or `item frequency`.
        label: the bin, e.g. "3-4", "20+"; "0 (cold)" for targets that training never saw.
        metrics: e.g. `{"ndcg@10": 0.0668}`; empty where no query falls into the bin.
    """

    kind: str
    label: str
    num_queries: int
    metrics: Mapping[str, float]


def slices(
    ranks: Ranks,
    item_counts: ArrayLike,
    *,
    lengths: Sequence[int] = (1, 3, 5, 9),
    frequencies: Sequence[int] = (0, 1, 5, 10, 20),
    ks: Sequence[int] = (10,),
) -> list[Slice]:
    """Metrics by history length, then by item frequency; each query is once in either.

    Args:
        ranks: of `rank_targets`.
        item_counts: `(I+1,)` how often each item occurs in training; `model.item_counts.cpu()` or
            `count_items(split.train, num_items)`; the same for all models that are compared.
        lengths: where each bin of history lengths starts; the last is open.
        frequencies: the same for counts.

    Raises:
        ConfigError: the starts do not increase, or a query falls below the first.
        DataError: a target has no count.
    """
    counts = np.asarray(item_counts)
    if len(ranks.targets) and ranks.targets.max() >= len(counts):
        raise DataError(
            f"item {ranks.targets.max()} was ranked, but there are counts for items up to {len(counts) - 1} only. Give "
            "the counts of the same catalogue."
        )
    cuts = {
        HISTORY_LENGTH: (ranks.history_lengths, lengths),
        ITEM_FREQUENCY: (counts[ranks.targets], frequencies),
    }
    return [
        _slice(ranks, kind, label, bins == number, ks)
        for kind, (values, starts) in cuts.items()
        for bins in [_bins(kind, values, starts)]
        for number, label in enumerate(_labels(kind, starts))
    ]


def _bins(kind: str, values: np.ndarray, starts: Sequence[int]) -> np.ndarray:
    """The bin of each value, `(Q,)`."""
    if not starts or any(low >= high for low, high in pairwise(starts)):
        raise ConfigError(f"bins of {kind} must start at increasing numbers, got {list(starts)}.")
    bins = np.searchsorted(np.asarray(starts), values, side="right") - 1
    if (bins < 0).any():
        raise ConfigError(
            f"{int((bins < 0).sum())} queries have a {kind} below {starts[0]}, where the first bin starts; the least "
            f"is {values.min():g}. Start there."
        )
    return bins


def _labels(kind: str, starts: Sequence[int]) -> list[str]:
    ends = [start - 1 for start in starts[1:]]
    labels = [f"{low}" if low == high else f"{low}-{high}" for low, high in zip(starts, ends, strict=False)]
    labels.append(f"{starts[-1]}+")
    if kind == ITEM_FREQUENCY and labels[0] == "0":
        labels[0] = "0 (cold)"
    return labels


def _slice(ranks: Ranks, kind: str, label: str, chosen: np.ndarray, ks: Sequence[int]) -> Slice:
    rows = None if ranks.rows is None else ranks.rows[chosen]
    sizes = None if ranks.set_sizes is None or rows is None else np.bincount(rows)[rows]
    picked = replace(
        ranks,
        ranks=ranks.ranks[chosen],
        targets=ranks.targets[chosen],
        history_lengths=ranks.history_lengths[chosen],
        rows=rows,
        set_sizes=sizes,  # of what is chosen of each set
    )
    return Slice(kind, label, len(picked.ranks), picked.metrics(ks) if len(picked.ranks) else {})


# ---- several models side by side ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SliceRow:
    """One bin of several models: its queries, and each model's mean over seeds; None where there is no query."""

    kind: str
    label: str
    num_queries: int
    spreads: Mapping[str, Spread | None]


def compare(models: Mapping[str, Sequence[Sequence[Slice]]], metric: str = "ndcg@10") -> list[SliceRow]:
    """Bins of several models side by side.

    Args:
        models: by name, for each seed its `slices`.

    Raises:
        DataError: nothing to compare, slices of other queries or bins, or `metric` was not measured.
    """
    runs = {name: list(seeds) for name, seeds in models.items()}
    if not runs or not all(runs.values()):
        raise DataError(f"slices are compared of models that were measured with a seed at least, got {list(runs)}.")
    first = next(iter(runs.values()))[0]
    bins = [(part.kind, part.label, part.num_queries) for part in first]
    for name, seeds in runs.items():
        for parts in seeds:
            for part, expected in zip(parts, bins, strict=False):
                if (part.kind, part.label, part.num_queries) != expected:
                    raise DataError(
                        f"{name!r} has {part.num_queries} queries of {part.kind} {part.label} where another model or "
                        f"seed has {expected[2]} of {expected[0]} {expected[1]}. Compare on the same queries and bins."
                    )
                if part.num_queries and metric not in part.metrics:
                    raise DataError(f"{metric} of {name!r} was not measured, only {sorted(part.metrics)}.")
            if len(parts) != len(bins):
                raise DataError(f"{name!r} has {len(parts)} slices, another model or seed {len(bins)}.")
    return [
        SliceRow(
            *bins[i],
            {
                name: Spread.of([parts[i].metrics[metric] for parts in seeds]) if bins[i][2] else None
                for name, seeds in runs.items()
            },
        )
        for i in range(len(bins))
    ]


def slice_table(models: Mapping[str, Sequence[Sequence[Slice]]], metric: str = "ndcg@10") -> str:
    """A Markdown table: a row for each bin, a column for each model, mean ± standard deviation over seeds.

    Args and errors: see `compare`.
    """
    rows = compare(models, metric)
    header = [f"{pretty(metric)} by", "bin", "queries", *map(line, models)]
    cells = [[row.kind, row.label, f"{row.num_queries:,}", *map(show, row.spreads.values())] for row in rows]
    return grid(header, cells, text_columns=2) + "\n"


__all__ = ["Slice", "SliceRow", "compare", "slice_table", "slices"]

"""Competence-based curriculum over queries: easy ones first, all of them in the end.

Difficulty follows CKD-MDSR (arXiv 2401.00797: sequence length and item popularity); the pacing is that of Platanios
et al. 2019 (arXiv 1903.09848). See docs/papers.md for what is reconstructed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Sampler

from ..errors import ConfigError
from .collators import SequenceDataset


@dataclass(frozen=True)
class Curriculum:
    """How difficulty is measured and how fast it rises.

    Args:
        initial_competence: c0, the share of queries that is unlocked at the start.
        fraction: T_c as a share of all optimizer steps; afterwards everything is unlocked.
        length_weight: w_len, weight of length against rarity.
        length_direction: +1 when long histories are hard, -1 when short ones are.
        pacing: `sqrt`, `linear`, or `stages`.
        stages: number of equal steps that `stages` takes.
    """

    initial_competence: float = 0.2
    fraction: float = 0.3
    length_weight: float = 0.5
    length_direction: int = 1
    pacing: str = "sqrt"
    stages: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.initial_competence <= 1 or not 0 < self.fraction <= 1:
            raise ConfigError(
                f"initial_competence and fraction must lie in (0, 1], got {self.initial_competence}, {self.fraction}."
            )
        if self.pacing not in ("sqrt", "linear", "stages") or self.length_direction not in (1, -1):
            raise ConfigError(f"pacing {self.pacing!r} or length_direction {self.length_direction} is unknown.")

    def competence(self, step: int, total_steps: int) -> float:
        """c(t): queries up to this percentile of difficulty are unlocked at `step`."""
        progress = min(1.0, step / max(1.0, self.fraction * total_steps))
        c0 = self.initial_competence
        if self.pacing == "sqrt":
            return min(1.0, float(np.sqrt(progress * (1 - c0**2) + c0**2)))
        if self.pacing == "stages":
            progress = np.floor(progress * self.stages) / self.stages
        return min(1.0, c0 + (1 - c0) * float(progress))

    def difficulty(self, lengths: np.ndarray, rarity: np.ndarray) -> np.ndarray:
        """Percentile D of every query, `(N,)` in (0, 1], from history lengths and mean negative log popularity."""
        by_length, by_rarity = _percentile(self.length_direction * lengths), _percentile(rarity)
        return _percentile(self.length_weight * by_length + (1 - self.length_weight) * by_rarity)


def history_statistics(dataset: SequenceDataset, item_counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Length and mean `-log p(item)` of the history of every query id, `(N,)` each; ids nobody asks get 0 and 0.

    Args:
        item_counts: `(I+1,)` occurrences in training.
    """
    surprise = -np.log(np.maximum(item_counts, 1) / max(item_counts.sum(), 1))  # (I+1,)
    lengths, rarity = np.zeros(dataset.num_queries, dtype=np.int64), np.zeros(dataset.num_queries)
    for items, first, start, _ in dataset:
        history = np.arange(max(first, 1), len(items) + 1)
        ids = start - first + history
        lengths[ids] = history
        rarity[ids] = np.cumsum(surprise[items])[history - 1] / history
    return lengths, rarity


def _percentile(values: np.ndarray) -> np.ndarray:
    """Empirical CDF: the share of values that are not larger. Rounded, for sums of equal terms must stay ties."""
    values = np.round(values, 12)
    return np.searchsorted(np.sort(values), values, side="right") / len(values)


class QuerySampler(Sampler[int]):
    """Draws rows step by step, without replacement as long as the unlocked pool lasts, then shuffles it anew.

    Every epoch has `ceil(rows / batch_size)` full steps, so one process, several, and gradient accumulation see the
    same rows in the same step. The order depends on seed and epoch only: resuming replays it.

    Args:
        num_rows: rows of the training part.
        batch_size: rows of one optimizer step, over all processes and micro-batches.
        unlocked_from: `(rows,)` difficulty of each row's easiest query; None without curriculum.
        competence: `step -> c`, called with the global step.
    """

    def __init__(self, num_rows: int, batch_size: int, seed: int, unlocked_from=None, competence=None) -> None:
        self.num_rows, self.batch_size, self.seed, self.epoch = num_rows, batch_size, seed, 0
        self.unlocked_from, self.competence = unlocked_from, competence
        self.steps = -(-num_rows // batch_size)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.batch_size

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.epoch)
        left = torch.zeros(0, dtype=torch.int64)  # shuffled rows still to draw
        pool = left
        for step in range(self.epoch * self.steps, (self.epoch + 1) * self.steps):
            grown = self._pool(step)
            if len(grown) > len(pool):  # what is newly unlocked joins the rows still to draw
                fresh = grown[~torch.isin(grown, pool)]
                left, pool = torch.cat([left, fresh]), grown
                left = left[torch.randperm(len(left), generator=generator)]
            while len(left) < self.batch_size:
                left = torch.cat([left, pool[torch.randperm(len(pool), generator=generator)]])
            yield from left[: self.batch_size].tolist()
            left = left[self.batch_size :]

    def _pool(self, step: int) -> torch.Tensor:
        if self.competence is None:
            return torch.arange(self.num_rows)
        unlocked = np.flatnonzero(self.unlocked_from <= self.competence(step))
        if not len(unlocked):  # at least the easiest rows
            unlocked = np.flatnonzero(self.unlocked_from == self.unlocked_from.min())
        return torch.from_numpy(unlocked)

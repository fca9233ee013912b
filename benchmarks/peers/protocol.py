"""What every runner of the speed benchmark shares: the setting, the data, the clock, the one JSON line.

Runs in each peer's own environment, so it needs numpy, pandas and torch only, and Python 3.9.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch


@dataclass(frozen=True)
class Setting:
    """The model and the task, equal for everyone; what a library cannot express is told in its `notes`."""

    width: int = 64
    layers: int = 2
    heads: int = 2
    inner: int = 256
    max_length: int = 50
    dropout: float = 0.5
    learning_rate: float = 1e-3
    loss: str = "full softmax cross-entropy"
    top_k: tuple[int, ...] = (10, 50)
    seed: int = 0


@dataclass
class Report:
    """One library's measurements; printed again after each of them, so a run that dies keeps what it has."""

    name: str
    versions: dict[str, str]
    threads: int
    batch_size: int
    batch_unit: str
    notes: list[str]
    smoke: bool = False
    setup_s: float | None = None
    n_rows: int | None = None
    n_targets: int | None = None
    n_items: int | None = None
    n_eval_users: int | None = None
    epochs_s: list[float] = field(default_factory=list)
    epochs_cpu_s: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    evals_s: list[float] = field(default_factory=list)
    evals_cpu_s: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    def add_epoch(self, wall: float, cpu: float, loss: float) -> None:
        self.epochs_s.append(round(wall, 4))
        self.epochs_cpu_s.append(round(cpu, 4))
        self.losses.append(round(loss, 4))
        self.print()

    def add_eval(self, wall: float, cpu: float, metrics: dict[str, float]) -> None:
        self.evals_s.append(round(wall, 4))
        self.evals_cpu_s.append(round(cpu, 4))
        self.metrics = {name: round(float(value), 4) for name, value in metrics.items()}
        self.print()

    def print(self) -> None:
        summary = {
            "epoch_s": median(self.epochs_s) if self.epochs_s else None,
            "eval_s": median(self.evals_s) if self.evals_s else None,
        }
        print(json.dumps({**asdict(self), **summary, "setting": asdict(Setting())}), flush=True)


class Clock:
    """Wall and processor seconds since it was made; far apart, they tell of a machine that was busy with others."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


def timed(work: Callable, *given: object) -> tuple[float, float, Any]:
    """Wall seconds, processor seconds and the result of `work(*given)`."""
    clock = Clock()
    result = work(*given)
    return (*clock.read(), result)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder with interactions.parquet")
    parser.add_argument("--epochs", type=int, default=2, help="timed training epochs")
    parser.add_argument("--evals", type=int, default=3, help="timed evaluations")
    parser.add_argument("--smoke", action="store_true", help="a few batches only: does it run? Its times mean nothing")
    options = parser.parse_args()
    options.data = options.data.resolve()
    return options


def one_thread() -> int:
    """Hold torch to one thread (the starting script sets OMP_NUM_THREADS and its like) and return what it says."""
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    return torch.get_num_threads()


def versions_of(*packages: str) -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version_of(package) for package in packages}}


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "source tree"  # ours, when it is imported from src without being installed


def read_interactions(folder: Path) -> pd.DataFrame:
    """`user_id item_id timestamp`, each user's rows together and oldest first; ties keep the file's order."""
    table = pd.read_parquet(folder / "interactions.parquet", columns=["user_id", "item_id", "timestamp"])
    table = table.astype({"user_id": str, "item_id": str})
    return table.sort_values(["user_id", "timestamp"], kind="stable").reset_index(drop=True)


def leave_one_out(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The train part (all but each user's last two) and the valid targets (the second-last)."""
    from_end = table.groupby("user_id").cumcount(ascending=False)
    return table[from_end >= 2], table[from_end == 1]

"""What serving a model takes: parameters, megabytes, milliseconds per user."""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..errors import ConfigError
from ..recommenders.recommender import RecommenderModel
from ..recommenders.user_recommender import UserRecommender

BATCH, TOP, THREADS = 256, 10, 1
HOW = f"batch of {BATCH}, top {TOP}, {THREADS} CPU thread, external ids in and out"


class Cost(NamedTuple):
    """What serving a model takes."""

    parameters: int
    megabytes: float
    ms_per_user: float


def measure_cost(
    model: RecommenderModel,
    histories: Sequence[Sequence[str]],
    repeats: int = 7,
    *,
    users: Sequence[str] | None = None,
) -> Cost:
    """Parameters, size of the saved safetensors and latency of `recommend`, ids in and ids out.

    Latency is the median over `repeats` calls, after one to warm up, of a batch of 256 histories, top 10, on one CPU
    thread, divided by 256.

    Args:
        histories: external ids; repeated until there are 256.
        users: external ids, one for each history; given to models that know users.

    Raises:
        ConfigError: there is no history, or `repeats` is below 1.
    """
    if not histories or repeats < 1:
        raise ConfigError(f"measuring needs a history and a repeat, got {len(histories)} and {repeats}.")
    if model.device.type != "cpu":
        model = copy.deepcopy(model).cpu()
    batch = [histories[i % len(histories)] for i in range(BATCH)]
    known: dict[str, Any] = {}
    if users is not None and isinstance(model, UserRecommender):
        known["users"] = [users[i % len(users)] for i in range(BATCH)]
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            model.recommend(batch, TOP, batch_size=BATCH, **known)
            times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        size = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters, size / 1e6, 1000 * statistics.median(times[1:]) / BATCH)

"""What the examples measure about a model, and what they say and write beside it."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from .. import __version__
from ..config import Experiment
from ..evaluation.cost import measure_cost
from ..evaluation.ranks import rank_targets
from ..evaluation.results import Result
from ..processes import this_process
from ..recommenders.recommender import RecommenderModel
from .domains import SYNTHETIC, Domain, histories_of, users_of


def measure(
    model: RecommenderModel,
    name: str,
    role: str,
    experiment: Experiment,
    domain: Domain,
    seed: int,
    teacher_weights: Mapping[str, Mapping[str, float]] | None = None,
    *,
    parts: Sequence[str] = ("test",),
    histories: Sequence[str] = ("masked", "unmasked"),
) -> list[Result]:
    """Metrics over the whole catalogue, one result for each part of the split and each word of `histories`, and cost.

    Args:
        name, role, teacher_weights: see `Result`.
        parts: `valid`, `test`. histories: `masked`, `unmasked`.
    """
    cost = measure_cost(model, histories_of(domain, "test", 256), users=users_of(domain, "test", 256))
    found = []
    for part in parts:
        for history in histories:
            ranks = rank_targets(model, domain.part(part), history=history)
            found.append(
                Result(
                    model=name,
                    role=role,
                    domain=domain.name,
                    data=f"{SYNTHETIC} market, seed 0" if experiment.data == SYNTHETIC else domain.name,
                    seed=seed,
                    split=part,
                    protocol=domain.split.protocol,
                    history=history,
                    metrics=ranks.metrics(),
                    num_users=len(domain.split.part(part)),
                    num_queries=ranks.num_queries,
                    teacher_weights=teacher_weights or {},
                    **cost._asdict(),
                )
            )
    told = [f"{one.split} NDCG@10 {one.metrics['ndcg@10']:.4f}" for one in found if one.history == histories[0]]
    say(f"{domain.name}, seed {seed}: {name} has {', '.join(told)} (history {histories[0]})")
    return found


def about() -> dict[str, object]:
    """The command and the versions that results belong to."""
    packages = {name: version(name) for name in ("torch", "transformers", "datasets", "accelerate")}
    versions = {"seqkd": __version__, **packages, "python": platform.python_version()}
    return {"command": " ".join(sys.argv), "versions": versions}


def say(text: str) -> None:
    """A line with the time, from the main process."""
    this_process().print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)

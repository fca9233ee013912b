"""Results of a long benchmark as JSON lines: appended as they come, and what stands there is not run again."""

from __future__ import annotations

import json
import platform
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from seqkd import RecommenderModel, count_items, rank_targets
from seqkd.evaluation.cost import measure_cost
from seqkd.evaluation.results import Result
from seqkd.evaluation.slices import slices
from seqkd.pipeline import Domain, histories_of, users_of


class Journal:
    """The results of one domain in one file."""

    def __init__(self, path: Path, domain: Domain) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.domain = path, domain

    def __contains__(self, key: tuple[str, int]) -> bool:
        """Whether the model of that name and seed has been measured."""
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        return key in {(entry["model"], entry["seed"]) for entry in map(json.loads, lines)}

    def record(
        self, model: RecommenderModel, name: str, role: str, seed: int, started: float, weights: dict | None = None
    ) -> None:
        """Measure on valid and test, history masked and not, with slices of the masked test."""
        domain = self.domain
        cost = measure_cost(model, histories_of(domain, "test", 256), users=users_of(domain, "test", 256))
        lines = []
        for split in ("valid", "test"):
            for history in ("masked", "unmasked"):
                ranks = rank_targets(model, domain.part(split), history=history)
                result = Result(
                    name,
                    role,
                    domain.name,
                    domain.name,
                    seed,
                    split,
                    domain.split.protocol,
                    history,
                    ranks.metrics(),
                    num_users=len(domain.split.test),
                    num_queries=len(ranks.ranks),
                    teacher_weights=weights or {},
                    **cost._asdict(),
                )
                line = {**result.to_dict(), "about": about(started)}
                if (split, history) == ("test", "masked"):
                    counts = count_items(domain.split.train, domain.num_items).numpy()
                    line["slices"] = [asdict(one) for one in slices(ranks, counts)]
                lines.append(line)
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        found = {split: line["metrics"]["ndcg@10"] for line in lines[::2] for split in [line["split"]]}
        print(f"{domain.name} {seed} {name}: NDCG@10 {found} {time.time() - started:.0f} s", flush=True)


def about(started: float) -> dict:
    """The command, the versions and the seconds that a result belongs to."""
    packages = {name: version(name) for name in ("torch", "transformers", "datasets", "accelerate")}
    versions = {**packages, "python": platform.python_version()}
    return {"command": " ".join(sys.argv), "seconds": round(time.time() - started), **versions}

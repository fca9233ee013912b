"""What was measured about one model: a record that names its whole protocol, and means over seeds."""

from __future__ import annotations

import json
import math
import os
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from ..data.columns import PROTOCOLS
from ..errors import DataError
from ..teaching.teacher_weights import STATISTICS

ROLES = ("teacher", "student", "distilled")
WORDS = {
    "role": ROLES,
    "split": ("valid", "test"),
    "protocol": PROTOCOLS,
    "history": ("masked", "unmasked"),
}
METRIC = re.compile(r"(recall|ndcg|mrr)@[1-9][0-9]*")


@dataclass(frozen=True)
class Result:
    """One model, trained with one seed, measured on one domain over the full catalogue.

    Args:
        model: what readers call it, e.g. "student alone"; equal names differ by seed only.
        role: `teacher`, `student` (trained alone) or `distilled`.
        data: where the interactions come from; says "synthetic" when they were generated.
        split: `valid` or `test`. protocol: `loo` (leave-one-out), `temporal`, `preset` (the split the data brings), or
            `ratio` (60/20/20 of each user at random, asked for as sets, see `TargetSets`).
        history: `masked` when items a user already has were taken out of the ranking, else `unmasked`.
        metrics: e.g. `{"ndcg@10": 0.0668}`, means over queries, 0 to 1; in `ratio` a user is one query.
        megabytes: of the saved safetensors, 10^6 bytes. ms_per_user: see `cost.measure_cost`.
        teacher_weights: how a distilled model's teachers were weighed, see `teacher_weights_of`. Files do not name
            it where it is empty.

    Raises:
        DataError: a word is not one of those above, a metric has another name, a number is not finite, or in `ratio`
            users were not asked once each.
    """

    model: str
    role: str
    domain: str
    data: str
    seed: int
    split: str
    protocol: str
    history: str
    metrics: Mapping[str, float]
    num_users: int
    num_queries: int
    parameters: int
    megabytes: float
    ms_per_user: float
    teacher_weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, allowed in WORDS.items():
            if getattr(self, name) not in allowed:
                raise DataError(f"{self._name()}: {name} must be one of {allowed}, got {getattr(self, name)!r}.")
        for metric in self.metrics:
            if not METRIC.fullmatch(metric):
                raise DataError(f"{self._name()}: metric {metric!r} is unknown. Write e.g. ndcg@10, recall@50, mrr@10.")
        metrics = {str(name): self._number(name, value) for name, value in self.metrics.items()}
        for name, value in metrics.items():
            if not 0 <= value <= 1:
                raise DataError(f"{self._name()}: {name} is {value}. Write it as a fraction of 1, not in percent.")
        object.__setattr__(self, "metrics", metrics)
        object.__setattr__(self, "teacher_weights", {t: self._weighing(t, w) for t, w in self.teacher_weights.items()})
        for name in ("megabytes", "ms_per_user"):
            object.__setattr__(self, name, self._number(name, getattr(self, name)))
        for name in ("seed", "num_users", "num_queries", "parameters"):
            object.__setattr__(self, name, int(self._number(name, getattr(self, name))))
        if self.protocol == "ratio":
            self._require_sets()

    def _require_sets(self) -> None:
        """Refuse what was measured target by target: such numbers do not compare with those of sets."""
        if self.num_queries != self.num_users or any(name.startswith("mrr") for name in self.metrics):
            raise DataError(
                f"{self._name()}: protocol 'ratio' asks each of the {self.num_users} users once, for a set, which has "
                f"Recall and NDCG; here are {self.num_queries} queries and {sorted(self.metrics)}. Rank the rows of "
                "TargetSets(split.test, num_items, split.users), with ratio_split(market, queries='users')."
            )

    def _name(self) -> str:
        return f"result of {self.model!r} on {self.domain!r}, seed {self.seed}"

    def _number(self, name: str, value: Any) -> float:
        try:  # float() also turns numpy and torch scalars into plain numbers that JSON and YAML can carry
            number = float(value)
        except (TypeError, ValueError) as error:
            raise DataError(f"{self._name()}: {name} must be a number, got {value!r}.") from error
        if not math.isfinite(number):
            raise DataError(
                f"{self._name()}: {name} is {number}. A result that is not finite is not reported; find out why."
            )
        return number

    def _weighing(self, teacher: str, weights: Mapping[str, float]) -> dict[str, float]:
        if set(weights) != set(STATISTICS):
            raise DataError(f"{self._name()}: teacher {teacher!r} has {sorted(weights)}. Write {STATISTICS}.")
        checked = {name: self._number(f"{name} of teacher {teacher!r}", weights[name]) for name in STATISTICS}
        for name, value in checked.items():
            if not 0 <= value <= 1:
                raise DataError(f"{self._name()}: {name} of teacher {teacher!r} is {value}. It is a share, 0 to 1.")
        return checked

    def to_dict(self) -> dict[str, Any]:
        """Plain fields for JSON."""
        content = asdict(self)
        if not self.teacher_weights:
            del content["teacher_weights"]
        return content

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Raises DataError: the text is no result, or holds NaN or an infinite number."""
        try:
            return cls._from_fields(json.loads(text))
        except json.JSONDecodeError as error:
            raise DataError(f"this is no JSON: {error}.") from error

    @classmethod
    def _from_fields(cls, content: Any) -> Result:
        expected = {field.name for field in fields(cls)}
        if not isinstance(content, dict):
            raise DataError(f"a result has the fields {sorted(expected)}; missing or unknown: {content}.")
        wrong = expected.symmetric_difference({"teacher_weights": {}, **content})
        weights = content.get("teacher_weights", {})
        nested = [content.get("metrics"), weights, *(weights.values() if isinstance(weights, dict) else ())]
        if wrong or not all(isinstance(value, dict) for value in nested):
            raise DataError(f"a result has the fields {sorted(expected)}; missing or unknown: {sorted(wrong)}.")
        return cls(**content)


def save_results(results: Sequence[Result], path: str | os.PathLike, about: Mapping[str, Any]) -> None:
    """A JSON file with the results and what they are about: command, versions, seeds. Never pass a token in `about`."""
    content = {"about": dict(about), "results": [result.to_dict() for result in results]}
    Path(path).write_text(json.dumps(content, allow_nan=False, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def load_results(path: str | os.PathLike) -> list[Result]:
    """Raises DataError: the file is not one of `save_results`."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return [Result._from_fields(entry) for entry in content["results"]]
    except (json.JSONDecodeError, KeyError, TypeError, DataError) as error:
        raise DataError(f"{path} holds no results of seqkd: {error}") from error


class Spread(NamedTuple):
    """Mean and sample standard deviation over `seeds` seeds; the deviation of a single one is 0 and not shown."""

    mean: float
    std: float
    seeds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))


@dataclass(frozen=True)
class Summary:
    """One model on one domain: its results, one a seed."""

    results: tuple[Result, ...]

    @property
    def first(self) -> Result:
        """Carries everything that seeds have in common."""
        return self.results[0]

    @property
    def ms_per_user(self) -> Spread:
        return Spread.of([result.ms_per_user for result in self.results])

    @property
    def megabytes(self) -> float:
        return statistics.fmean(result.megabytes for result in self.results)

    def by_seed(self, metric: str) -> dict[int, float]:
        return {result.seed: result.metrics[metric] for result in self.results}

    def spread(self, metric: str) -> Spread | None:
        """None where this was not measured."""
        return Spread.of([*self.by_seed(metric).values()]) if metric in self.first.metrics else None

    def teacher_weights(self) -> dict[str, dict[str, Spread]]:
        """By teacher and statistic; empty where nothing was recorded."""
        return {
            teacher: {
                name: Spread.of([result.teacher_weights[teacher][name] for result in self.results]) for name in told
            }
            for teacher, told in self.first.teacher_weights.items()
        }


def summarise(results: Sequence[Result]) -> list[Summary]:
    """Means over seeds, in the order in which models and domains first occur.

    Raises:
        DataError: a seed occurs twice, or the seeds of one model differ in metrics, users, size or teachers.
    """
    groups: dict[tuple, list[Result]] = {}
    for r in results:
        groups.setdefault((r.domain, r.data, r.split, r.protocol, r.history, r.role, r.model), []).append(r)
    return [_summary(group) for group in groups.values()]


def _summary(group: list[Result]) -> Summary:
    first, seeds = group[0], [result.seed for result in group]
    if len(set(seeds)) != len(seeds):
        raise DataError(f"{first.model!r} on {first.domain!r} occurs twice with one seed: {sorted(seeds)}.")
    for other in group[1:]:
        for name in ("num_users", "num_queries", "parameters"):
            if getattr(other, name) != getattr(first, name):
                raise DataError(
                    f"{first.model!r} on {first.domain!r} has {name} {getattr(first, name)} with seed {first.seed}, "
                    f"but {getattr(other, name)} with seed {other.seed}. Give models that differ different names."
                )
        if set(other.teacher_weights) != set(first.teacher_weights):
            raise DataError(
                f"{first.model!r} on {first.domain!r} was taught by {sorted(first.teacher_weights)} with seed "
                f"{first.seed}, but by {sorted(other.teacher_weights)} with seed {other.seed}."
            )
        if set(other.metrics) != set(first.metrics):
            raise DataError(
                f"{first.model!r} on {first.domain!r}: seeds {first.seed} and {other.seed} have other metrics."
            )
    return Summary(tuple(group))

"""How a method weighed its teachers, read from the log of a training that is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil
from typing import Any

from ..errors import DataError

STATISTICS = ("confidence", "consistency", "weight", "leads")


def teacher_weights_of(log_history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Means over the training queries of the last epoch, when a curriculum has unlocked all it ever will.

    Args:
        log_history: `trainer.state.log_history`. Each entry of the last epoch counts by the steps it covers.

    Returns:
        For each teacher its mean `confidence`, `consistency` and `weight`, and the share of queries on which it
        `leads`; each adds up to 1 over teachers. Empty where nothing of the kind was logged: one teacher, or none.
        A teacher of which a method logs only some of the four is left out.

    Raises:
        DataError: two methods weighed teachers.
    """
    logged = [(entry, told) for entry in log_history if (told := _weighed(entry))]
    if not logged:
        return {}
    start = ceil(logged[-1][0]["epoch"]) - 1  # of the last epoch
    covered = [step - before for before, step in pairwise([0, *(entry["step"] for entry, _ in logged)])]
    recent = [(steps, told) for steps, (entry, told) in zip(covered, logged, strict=True) if entry["epoch"] > start]
    keys = recent[-1][1].keys()
    methods = sorted({method for method, _, _ in keys})
    if len(methods) > 1:
        raise DataError(f"the methods {methods} both weighed teachers; a result tells of one. Read the log itself.")
    total = sum(steps for steps, _ in recent)
    mean = {key: sum(steps * told[key] for steps, told in recent) / total for key in keys}
    teachers = dict.fromkeys(teacher for _, teacher, _ in keys)
    return {
        teacher: {name: mean[methods[0], teacher, name] for name in STATISTICS}
        for teacher in teachers
        if all((methods[0], teacher, name) in mean for name in STATISTICS)
    }


def _weighed(entry: Mapping[str, Any]) -> dict[tuple[str, str, str], float]:
    """What a log entry says of teachers: `<method>/<teacher>/<statistic>`, where a teacher's name may hold a `/`."""
    told = {}
    for name, value in entry.items():
        method, _, rest = name.partition("/")
        teacher, _, statistic = rest.rpartition("/")
        if teacher and statistic in STATISTICS:
            told[method, teacher, statistic] = float(value)
    return told


__all__ = ["STATISTICS", "teacher_weights_of"]

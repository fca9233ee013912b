"""The card's numbers for machines: the YAML at the top of README.md, and `.eval_results/*.yaml`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from ..evaluation.report import pretty, setting
from ..evaluation.results import Result
from ..files.markdown import line

TAGS = ("seqkd", "recommender-systems")
SEQUENTIAL = "sequential-recommendation"


def front_matter(
    name: str,
    own: Sequence[Result],
    base_model: Sequence[str],
    datasets: Mapping[str, str],
    license: str | None,
    *,
    distilled: bool,
    sequential: bool,
) -> ModelCardData:
    """Metadata with a model-index of the results `own` of the model called `name`.

    Args:
        sequential: it reads the order of a history; distilled: it had a teacher.
    """
    measured = [
        EvalResult(
            task_type="set-recommendation" if result.protocol == "ratio" else SEQUENTIAL,
            task_name="recommendation of a set" if result.protocol == "ratio" else "next item recommendation",
            dataset_type=_dataset_id(result, datasets),
            dataset_name=line(f"{result.domain} ({result.data})"),
            dataset_config=line(result.domain),
            dataset_split=result.split,
            metric_type=metric,
            metric_name=f"{pretty(metric)}, history {result.history}",
            metric_value=value,
            metric_args={
                "k": int(metric.split("@")[1]),
                "full_ranking": True,
                "history": result.history,
                "split": result.split,
                "protocol": result.protocol,
                "n_users": result.num_users,
                "n_queries": result.num_queries,
                "seed": result.seed,
            },
        )
        for result in own
        for metric, value in result.metrics.items()
    ]
    return ModelCardData(
        library_name="seqkd",
        tags=[*TAGS, *[SEQUENTIAL] * sequential, *["knowledge-distillation"] * distilled],
        license=line(license) if license else None,
        base_model=[line(base) for base in base_model] or None,
        datasets=[line(dataset) for dataset in datasets.values()] or None,
        model_name=line(name) if measured else None,
        eval_results=measured or None,
    )


def _dataset_id(result: Result, datasets: Mapping[str, str]) -> str:
    """The Hub id of the data, or, where it has none, a name that is no Hub id."""
    return line(datasets.get(result.domain, _slug(result.data)))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", line(text).lower()).strip("-")[:80] or "unnamed"


def write_eval_results(folder: Path, own: Sequence[Result], datasets: Mapping[str, str]) -> None:
    """One file for each of the model's results; those of an earlier card are removed."""
    for old in folder.glob("*.yaml"):
        old.unlink()
    for number, result in enumerate(own):
        where = "" if result.domain in datasets else " The data set is not on the Hub."
        notes = (
            f"{line(result.domain)} ({line(result.data)}): {setting(result)} {result.num_users} users, seed "
            f"{result.seed}.{where}"
        )
        entries = [
            EvalResultEntry(dataset_id=_dataset_id(result, datasets), task_id=metric, value=value, notes=notes)
            for metric, value in result.metrics.items()
        ]
        content = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:02d}-{_slug(result.domain)}.yaml").write_text(content, encoding="utf-8")

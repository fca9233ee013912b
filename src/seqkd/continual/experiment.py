"""A whole experiment on a stream: CCD beside its baselines, over seeds, in one protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from datasets import DatasetDict

from ..data.interactions import load_interactions
from ..data.market import synthetic_market
from ..data.splits import load_markets
from ..data.stream import Block
from ..data.stream_ccd import is_ccd, read_ccd
from ..data.stream_cut import cut_stream
from ..errors import ConfigError, DataError
from ..evaluation.stream_matrix import StreamMatrix
from .baselines import BASELINES, Chain
from .configuration import ContinualConfig
from .evolution import Evolution
from .fit import FitConfig
from .report import SLICES, write_report

SYNTHETIC = "synthetic"
PARTICULAR = ("lwc_kd", "retrain, distilled")  # baselines that not every experiment has


@dataclass
class StreamExperiment:
    """What `examples/continual_ccd.py` runs.

    Args:
        data: a folder in the format of CCD's streams, a log, or `synthetic`.
        cut: of a log: `blocks` or `period`, and `base`, see `cut_stream`; what a block is, `run.blocks` says.
        run: the student, its teachers and how they learn.
        baselines: of the student, by name in `BASELINES`; by default those that any student has. `lwc_kd` wants one
            with a graph, "retrain, distilled" wants retrain among `teacher_baselines`: those of each teacher.
        student_alone: how a student is trained afresh by labels alone; by default as it is generated, without methods.
        seeds: a run for each.
        blocks: how many are gone through; all without it.
    """

    data: str = SYNTHETIC
    cut: dict[str, Any] = field(default_factory=lambda: {"blocks": 5})
    run: ContinualConfig = field(default_factory=ContinualConfig)
    baselines: list[str] = field(default_factory=lambda: [name for name in BASELINES if name not in PARTICULAR])
    teacher_baselines: list[str] = field(default_factory=list)
    student_alone: FitConfig | None = None
    seeds: list[int] = field(default_factory=lambda: [0])
    blocks: int | None = None
    output_dir: str = "outputs/continual_ccd"

    def __post_init__(self) -> None:
        unknown = {*self.baselines, *self.teacher_baselines} - set(BASELINES)
        if unknown:
            raise ConfigError(f"there are no baselines {sorted(unknown)}; choose some of {list(BASELINES)}.")
        settings = ("blocks", "period", "base")
        if set(self.cut) - set(settings):
            raise ConfigError(
                f"cut names {sorted(set(self.cut) - set(settings))}; choose some of {settings}. How a block is split "
                "stands in run.blocks."
            )
        if not self.seeds:
            raise ConfigError("seeds is empty; give at least one, e.g. [0].")


def read_stream(experiment: StreamExperiment) -> list[Block]:
    """The blocks of an experiment.

    Raises:
        DataError: see `read_ccd` and `cut_stream`. ConfigError: the data holds several domains.
    """
    if is_ccd(experiment.data):
        blocks = read_ccd(experiment.data)
    else:
        blocks = cut_stream(read_market(experiment.data), **vars(experiment.run.blocks), **experiment.cut)
    return blocks[: experiment.blocks]


def read_market(data: str, domain: str | None = None) -> DatasetDict:
    """The log that `StreamExperiment.data` names, of the one domain that it holds, or of `domain`.

    Raises:
        DataError: see `load_interactions`. ConfigError: the data holds several domains.
    """
    if data == SYNTHETIC:
        return synthetic_market(domains=1)
    if domain is not None:
        return load_interactions(data, domain=domain)
    markets = load_markets(data)
    if len(markets) != 1:
        raise ConfigError(f"{data} holds the domains {sorted(markets)}, but a stream is of one. Give it alone.")
    (market,) = markets.values()
    return market


class Contest:
    """CCD and its baselines on one stream with one seed; each is kept in its folder and resumes there."""

    def __init__(self, experiment: StreamExperiment, seed: int) -> None:
        self.folder = Path(experiment.output_dir) / f"seed-{seed}"
        config = replace(experiment.run, seed=seed)
        self.evolution = Evolution(self.folder / "ccd", config)
        generate = config.generate
        alone = experiment.student_alone or replace(generate, methods={}, weights={}, label_weight=1.0)
        first = self.folder / "ccd" / "0"
        self.chains: dict[str, Chain] = {}
        for teacher, model in config.teachers.items():
            for name in experiment.teacher_baselines:
                how = {"model": model, "stage": config.update_teacher, "base": config.base}
                place = first / "teachers" / teacher
                self.chains[f"teacher {teacher}, {name}"] = self._chain(teacher, name, first=place, **how)
        afresh = {name: self.chains.get(f"teacher {name}, retrain") for name in config.teachers}
        for name in experiment.baselines:
            if BASELINES[name].taught and None in afresh.values():
                raise ConfigError(
                    f"the baseline {name!r} wants teachers made afresh: put retrain to teacher_baselines."
                )
            how = {"model": config.student, "stage": config.update_student, "base": alone, "teachers": afresh}
            self.chains[f"student, {name}"] = self._chain("student", name, first=first / "generated", **how)

    def _chain(self, who: str, name: str, **how: Any) -> Chain:
        folder = self.folder / "baselines" / who / name.replace(", ", "-")
        return Chain(folder, BASELINES[name], self.evolution.config, **how)

    def run(self, blocks: Sequence[Block]) -> Iterator[str]:
        """Go through the stream; says what comes next before it is done.

        Raises:
            DataError: what was learned is of another stream.
        """
        learned = self.evolution.blocks
        for mine, block in zip(learned, blocks, strict=False):
            if mine.fingerprint != block.fingerprint:
                raise DataError(
                    f"{self.folder} has learned another block {mine.number} than this stream has. Give the data and "
                    "cut that it began with, or take another output_dir."
                )
        for k, block in enumerate(blocks):
            if k >= len(learned):
                yield f"block {k}: teachers and student"
                self.evolution.step(block)
            for name, chain in self.chains.items():
                if not chain.has(k):
                    yield f"block {k}: {name}"
                    chain.step(list(blocks[: k + 1]))

    def matrices(self, metric: str) -> dict[str, StreamMatrix]:
        """a[k][i] of all, ours first."""
        names = {"student": "CCD student, at once", "generated": "CCD student, distilled"}
        names |= {f"teachers/{name}": f"CCD teacher {name}" for name in self.evolution.config.teachers}
        names |= {"teachers": "CCD teachers together"}
        ours = {names[stage]: matrix for stage, matrix in self.evolution.matrices(metric).items()}
        students_first = sorted(self.chains, key=lambda name: not name.startswith("student"))
        return ours | {name: self.chains[name].matrix(metric) for name in students_first}


def report_of(contests: Sequence[Contest], folder: Path, data: str) -> str:
    """One report over all seeds, of a stream called `data`; see `write_report`."""
    evolution = contests[0].evolution
    title = f"{evolution.config.student.type} taught by {', '.join(evolution.config.teachers)} on {data}"
    metric, blocks = evolution.config.metric, len(evolution.blocks)
    runs = _over_seeds(contests, metric)
    costs = {"CCD": [evolution.ledger(k).costs() for k in range(blocks)]}
    costs |= {name: [chain.ledger(k).costs() for k in range(blocks)] for name, chain in contests[0].chains.items()}
    slices = {f"{which}/{metric}": _over_seeds(contests, f"{which}/{metric}") for which in SLICES}
    heat = [name for name in runs if name.startswith("CCD") and "at once" not in name][:2]
    return write_report(folder, runs, costs, slices=slices, heat=heat, title=title)


def _over_seeds(contests: Sequence[Contest], metric: str) -> dict[str, list[StreamMatrix]]:
    told = [contest.matrices(metric) for contest in contests]
    return {name: [matrices[name] for matrices in told] for name in told[0]}

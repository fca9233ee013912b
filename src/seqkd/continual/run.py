"""A run on a stream as a folder: its blocks, the models after each, what they cost, and the student to serve."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from transformers import AutoModel

from ..data.stream import Block
from ..data.stream_cut import next_block
from ..errors import ConfigError, SeqKDError
from ..evaluation.stream_matrix import StreamMatrix
from ..processes import this_process
from ..recommenders.recommender import RecommenderModel
from .configuration import FILE_NAME, ContinualConfig
from .ledger import COST, Ledger
from .measured import matrices
from .report import SLICES, write_report

REFUSED = "refused.json"
OLD = "student.old"  # the student that was served, while it is replaced


class Run:
    """What is kept of a run; `Evolution` is the loop that fills it.

    Args:
        folder: of the run.
        config: of a new run; one that was begun goes on with its own.

    Raises:
        ConfigError: there is neither a run nor a configuration, or they differ.
    """

    def __init__(self, folder: str | os.PathLike, config: ContinualConfig | None = None) -> None:
        self.folder = Path(folder)
        begun = ContinualConfig.load(self.folder) if (self.folder / FILE_NAME).exists() else None
        if begun is None and config is None:
            raise ConfigError(
                f"there is no run in {self.folder} yet. Give a configuration: --config FILE, or Evolution(folder, "
                "ContinualConfig())."
            )
        if begun is not None and config not in (None, begun):
            other = [each.name for each in fields(begun) if getattr(begun, each.name) != getattr(config, each.name)]
            raise ConfigError(
                f"the run in {self.folder} was begun with another configuration; {other} differ. Leave the new one out "
                "to go on, or take another folder."
            )
        self.config: ContinualConfig = begun or config  # type: ignore[assignment]

    def _begin(self) -> None:
        """Note the configuration: from now on the run goes on with it."""
        if not (self.folder / FILE_NAME).exists() and this_process().is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.config.save(self.folder)

    # ---- what is there ----------------------------------------------------------------------------------------

    @property
    def blocks(self) -> list[Block]:
        """Those that were learned, in order."""
        return [Block.load(folder / "block") for folder in self._learned()]

    @property
    def begun(self) -> Block | None:
        """The block in whose cycle an earlier attempt stopped: give it to `step` to go on."""
        place = self.folder / str(len(list(self._learned()))) / "block"
        return Block.load(place) if place.exists() else None

    def model(self, k: int, stage: str) -> RecommenderModel:
        """A model as it was after a block: `student`, `generated`, `stability`, `plasticity` or `teachers/<name>`."""
        return AutoModel.from_pretrained(self.folder / str(k) / stage).eval()

    @property
    def student(self) -> RecommenderModel:
        """The last student that was accepted: the one to serve."""
        served = self.folder / "student"
        # killed between two renamings, a run has put the old one aside and not the new one in its place
        return AutoModel.from_pretrained(served if served.exists() else self.folder / OLD).eval()

    def ledger(self, k: int) -> Ledger:
        """The stages of a block."""
        return Ledger(self.folder / str(k))

    def matrices(self, metric: str = "recall@20") -> dict[str, StreamMatrix]:
        """a[k][i] on the test parts, of every kind of model that there is after each block."""
        return matrices([k / "measured" for k in self._learned()], metric)

    def _learned(self) -> Iterator[Path]:
        k = 0
        while (self.folder / str(k) / "measured").exists():
            yield self.folder / str(k)
            k += 1

    def next_block(self, market: DatasetDict) -> Block:
        """New interactions as the next block, cut as `config.blocks` says; see `seqkd.next_block`."""
        return next_block(self.blocks, market, seed=self.config.seed, **vars(self.config.blocks))

    def report(self, metric: str | None = None) -> str:
        """Write `report.md`, `stream.json` and `stream.png` to the folder, and return the first.

        Raises:
            ConfigError: no block has been learned yet.
        """
        metric = metric or self.config.metric
        folders = list(self._learned())
        if not folders:
            raise ConfigError(
                f"the run in {self.folder} has learned no block yet. Feed one: --data FILE, or Evolution.step(block)."
            )
        names = {"student": "student, at once", "generated": "student, distilled"}
        names |= {f"teachers/{name}": f"teacher {name}" for name in self.config.teachers}
        names |= {"teachers": "teachers together"}
        runs = {names[stage]: [matrix] for stage, matrix in self.matrices(metric).items()}
        slices = {f"{which}/{metric}": self.matrices(f"{which}/{metric}") for which in SLICES}
        return write_report(
            self.folder,
            runs,
            {"this run": [Ledger(folder).costs() for folder in folders]},
            slices={of: {"student": [told["student"]]} for of, told in slices.items()},
            title=f"{self.config.student.type} taught by {', '.join(self.config.teachers)}",
        )

    # ---- what is put there ------------------------------------------------------------------------------------

    def _saved(self, model: RecommenderModel, folder: Path, noted: dict[str, Any]) -> dict[str, Any]:
        """Save what a stage made, without the checkpoints on the way."""
        this_process().wait_for_everyone()  # who may still read the best checkpoint
        if this_process().is_main_process:
            model.save_pretrained(folder)
            shutil.rmtree(folder / "run", ignore_errors=True)
        return noted

    def _serve(self, k: int, stage: str) -> None:
        """Put a student where the last good one is."""
        if this_process().is_main_process:
            fresh, old = self.folder / "student.new", self.folder / OLD
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(self.folder / str(k) / stage, fresh, ignore=shutil.ignore_patterns(COST))
            if (self.folder / "student").exists():
                shutil.rmtree(old, ignore_errors=True)
                os.replace(self.folder / "student", old)
            os.replace(fresh, self.folder / "student")
            shutil.rmtree(old, ignore_errors=True)
        this_process().wait_for_everyone()

    def _refuse(self, k: int, error: SeqKDError) -> None:
        """Move what there is of a block out of the way, with the reason."""
        place, state = self.folder / f"{k}.refused", this_process()
        if state.is_main_process and (self.folder / str(k)).exists():
            shutil.rmtree(place, ignore_errors=True)
            os.replace(self.folder / str(k), place)
            (place / REFUSED).write_text(json.dumps({"block": k, "why": str(error)}, indent=2), encoding="utf-8")
        state.wait_for_everyone()

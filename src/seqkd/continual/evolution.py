"""CCD: a student and its teachers that evolve together on a stream of blocks (Lee et al., KDD 2024, arXiv 2405.19046).

    run = Evolution("outputs/yelp", ContinualConfig())
    for block in read_ccd("ccd_yelp"):
        run.step(block)
    run.student  # the one to serve

After block k the folder holds `k/student`, which was updated by the block, `k/teachers/<name>`, `k/generated`, a
student distilled from these teachers with which the next cycle begins, and `k/stability` and `k/plasticity`, a slow and
a fast copy of generated students. `student` is what to serve: the updated one as soon as it is there, and the generated
one when it is as good on the validation of all blocks.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from accelerate import PartialState
from datasets import DatasetDict
from transformers import AutoModel

from ..data.stream import Block, check_stream
from ..data.stream_cut import next_block
from ..errors import ConfigError, DataError, SeqKDError
from ..evaluation.consensus import consensus_metrics
from ..evaluation.stream import StreamMatrix, block_metrics
from ..pipeline.kinds import KINDS
from ..pipeline.training import new_model
from ..recommenders.recommender import RecommenderModel
from ..recommenders.user_configuration import UserRecommenderConfig
from .configuration import FILE_NAME, ContinualConfig
from .fit import fit, part_of, require_sets
from .learning import Source, distil, learn
from .ledger import COST, Ledger
from .measured import matrices, write_metrics
from .proxies import follow
from .rehearsal import rows_of_everyone
from .report import SLICES, write_report

REFUSED = "refused.json"
VALID = "valid"  # what a stage notes of its student: the metric on validation of each block


class Evolution:
    """A run on a stream, kept in a folder; whoever opens it again goes on where it is.

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
            raise ConfigError(f"there is no run in {self.folder} yet. Give a configuration, e.g. ContinualConfig().")
        if begun is not None and config not in (None, begun):
            raise ConfigError(f"the run in {self.folder} was begun with another configuration. Take another folder.")
        self.config: ContinualConfig = begun or config  # type: ignore[assignment]
        if begun is None and PartialState().is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.config.save(self.folder)

    # ---- the loop ---------------------------------------------------------------------------------------------

    def step(self, block: Block) -> None:
        """Learn the next block, or go on with it at the stage in which an earlier attempt stopped.

        Raises:
            SeqKDError: the block, or what was learned of it, is no good. The last good student stays, which may be the
                one that was updated by this block; what there is of the block goes to `<k>.refused`, with the reason.
            DataError, ConfigError: it is not the next block of this stream, or not one for these models or settings;
                nothing is moved then.
        """
        blocks = [*self.blocks, block]
        self._require_next(blocks)
        try:
            self._cycle(blocks)
        except ConfigError:  # no fault of the block
            raise
        except SeqKDError as error:
            self._refuse(block.number, error)
            raise

    def _cycle(self, blocks: list[Block]) -> None:
        """One cycle of teachers and student: the fast update is served while the teachers still learn."""
        k, run = len(blocks) - 1, self.ledger(len(blocks) - 1).run
        run("block", lambda folder: blocks[k].save(folder) if PartialState().is_main_process else None)
        if k > 0:
            run("stability", lambda folder: self._follow("stability", k, folder))
            run("plasticity", lambda folder: self._follow("plasticity", k, folder))
            run("student", lambda folder: self._update_student(blocks, folder))
            self._serve(k, "student")
        for name in self.config.teachers:
            teach = self._train_teacher if k == 0 else self._update_teacher
            run(f"teachers/{name}", partial(teach, name, blocks))
        run("generated", lambda folder: self._generate(blocks, folder))
        if k == 0:
            run("student", lambda folder: self._saved(self.model(0, "generated"), folder, {}))
        if k == 0 or fmean(self._noted(k, "generated")) >= fmean(self._noted(k, "student")):
            self._serve(k, "generated")
        run("measured", lambda folder: self._measure(blocks, folder))  # last: what is measured is learned

    def _train_teacher(self, name: str, blocks: list[Block], folder: Path) -> dict[str, Any]:
        seed, metric = self._seed(name), self.config.metric
        model = new_model(blocks[0], self.config.teachers[name], f"teachers.{name}.model", seed)
        noted = fit(model, blocks[0], self.config.base, folder / "run", seed=seed, metric=metric)
        return self._saved(model, folder, noted)

    def _generate(self, blocks: list[Block], folder: Path) -> dict[str, Any]:
        """Stage 1: a fresh student, distilled from the teachers of a block (spec ccd 4).

        It hears them about everyone. In the release it hears them about the users of the block, and knows the others
        from the lists of items alone.
        """
        config, block, k = self.config, blocks[-1], len(blocks) - 1
        rows = rows_of_everyone(blocks) if config.teach_everyone and config.generate.methods else block.train
        teachers = {name: self.model(k, f"teachers/{name}") for name in config.teachers}
        fresh = config.fresh or k == 0
        student = new_model(block, config.student, "student.model", config.seed) if fresh else self.model(k, "student")
        noted = distil(student, block, rows, teachers, config, folder / "run")
        return self._saved(student, folder, {**noted, VALID: self._on_validation(student, block, blocks)})

    def _follow(self, name: str, k: int, folder: Path) -> None:
        """A proxy takes over from the student that was generated last (spec ccd 5.2)."""
        proxy = self.model(k - 1, name) if k > 1 else None
        self._saved(follow(proxy, self.model(k - 1, "generated"), getattr(self.config, name)), folder, {})

    def _update_student(self, blocks: list[Block], folder: Path) -> dict[str, Any]:
        """Stage 2: the generated student learns the block, and rehearses what its proxies know (spec ccd 5)."""
        student = self.model(len(blocks) - 2, "generated")
        noted = learn(student, blocks, self.config, self.config.update_student, self._proxies(blocks), folder / "run")
        return self._saved(student, folder, {**noted, VALID: self._no_worse(student, blocks)})

    def _update_teacher(self, name: str, blocks: list[Block], folder: Path) -> dict[str, Any]:
        """Stage 3: a teacher learns the block, and rehearses what proxies and the updated student know (spec ccd 6)."""
        k = len(blocks) - 1
        teacher = self.model(k - 1, f"teachers/{name}")
        sources = {**self._proxies(blocks), "student": Source(self.model(k, "student"), blocks[k])}
        noted = learn(teacher, blocks, self.config, self.config.update_teacher, sources, folder / "run")
        return self._saved(teacher, folder, noted)

    # ---- parts of it ------------------------------------------------------------------------------------------

    def _proxies(self, blocks: list[Block]) -> dict[str, Source]:
        """Both are the same at first, so that one speaks for them."""
        k = len(blocks) - 1
        names = ("stability",) if k == 1 else ("stability", "plasticity")
        return {name: Source(self.model(k, name), blocks[k - 1]) for name in names}

    def _require_next(self, blocks: list[Block]) -> None:
        """Raises:
        DataError: the last of the blocks does not follow the others, or is not the one that was begun.
        ConfigError: it is none for models that know users, or too small for what is to be measured.
        """
        block, k = blocks[-1], len(blocks) - 1
        if block.number != k:
            raise DataError(f"this is block {block.number}, but the run in {self.folder} waits for {k}.")
        check_stream(blocks)
        begun = self.folder / str(k) / "block"
        if begun.exists() and Block.load(begun).fingerprint != block.fingerprint:
            raise DataError(
                f"block {k} was begun with other interactions than these. Give the same to go on with it, or remove "
                f"{self.folder / str(k)} to begin it anew."
            )
        models = {"student": self.config.student, **{f"teachers.{n}": t for n, t in self.config.teachers.items()}}
        for where, model in models.items():
            if issubclass(KINDS[model.type].config, UserRecommenderConfig):
                require_sets(block, f"{where} ({model.type})")
        if max(self.config.cutoffs) >= len(block.catalogue):
            raise ConfigError(
                f"cutoffs {self.config.cutoffs} of {len(block.catalogue)} items say nothing. Give smaller ones in a "
                "new run."
            )

    def _no_worse(self, student: RecommenderModel, blocks: list[Block]) -> list[float]:
        """The student's metric on validation of each block.

        Raises:
            DataError: it has fallen too far below the one that was not updated.
        """
        *past, block = blocks
        told = self._on_validation(student, block, blocks)
        frozen = self.model(block.number - 1, "generated")
        before = [*self._noted(block.number - 1, "generated"), *self._on_validation(frozen, past[-1], [block])]
        if not fmean(told) >= fmean(before) * (1 - self.config.margin):
            raise DataError(
                f"block {block.number}: the updated student has {self.config.metric} {fmean(told):.4f} on validation, "
                f"a mean over blocks 0 to {block.number}; the one before, not updated, has {fmean(before):.4f}. That "
                f"is more than margin={self.config.margin} below. Look at the block's data, or lower update_student's "
                "learning rate."
            )
        return told

    def _on_validation(self, model: RecommenderModel, own: Block, blocks: list[Block]) -> list[float]:
        """The metric on validation of each block, of a model that has been grown to `own`."""
        ks, metric = self.config.cutoffs, self.config.metric
        return [block_metrics(model, one, own, part="valid", ks=ks)[metric] for one in blocks]

    def _noted(self, k: int, stage: str) -> list[float]:
        """What a stage noted of its student on validation."""
        return dict(self.ledger(k).costs())[stage][VALID]

    def _measure(self, blocks: list[Block], folder: Path) -> None:
        """Row k of every matrix a[k][i]."""
        k = len(blocks) - 1
        stages = ("student", "generated", *(f"teachers/{name}" for name in self.config.teachers))
        told = {}
        for stage in stages:
            model = self.model(k, stage)
            told[stage] = [block_metrics(model, past, blocks[k], ks=self.config.cutoffs) for past in blocks]
        if len(self.config.teachers) > 1:
            models = [self.model(k, f"teachers/{name}") for name in self.config.teachers]
            rows = [part_of(past, "test", blocks[k], models[0]) for past in blocks]
            told["teachers"] = [consensus_metrics(models, part, self.config.cutoffs) for part in rows]
        if PartialState().is_main_process:
            write_metrics(folder, told)

    def _saved(self, model: RecommenderModel, folder: Path, noted: dict[str, Any]) -> dict[str, Any]:
        """Save what a stage made, without the checkpoints on the way."""
        PartialState().wait_for_everyone()  # who may still read the best checkpoint
        if PartialState().is_main_process:
            model.save_pretrained(folder)
            shutil.rmtree(folder / "run", ignore_errors=True)
        return noted

    def _serve(self, k: int, stage: str) -> None:
        """Put a student where the last good one is."""
        if PartialState().is_main_process:
            fresh, old = self.folder / "student.new", self.folder / "student.old"
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(self.folder / str(k) / stage, fresh, ignore=shutil.ignore_patterns(COST))
            shutil.rmtree(old, ignore_errors=True)
            if (self.folder / "student").exists():
                os.replace(self.folder / "student", old)
            os.replace(fresh, self.folder / "student")
            shutil.rmtree(old, ignore_errors=True)
        PartialState().wait_for_everyone()

    def _refuse(self, k: int, error: SeqKDError) -> None:
        place, state = self.folder / f"{k}.refused", PartialState()
        if state.is_main_process and (self.folder / str(k)).exists():
            shutil.rmtree(place, ignore_errors=True)
            os.replace(self.folder / str(k), place)
            (place / REFUSED).write_text(json.dumps({"block": k, "why": str(error)}, indent=2), encoding="utf-8")
        state.wait_for_everyone()

    def _seed(self, name: str) -> int:
        """Of a teacher: those that are alike differ by it."""
        return self.config.seed + list(self.config.teachers).index(name)

    # ---- what is there ----------------------------------------------------------------------------------------

    def ledger(self, k: int) -> Ledger:
        """The stages of a block."""
        return Ledger(self.folder / str(k))

    @property
    def blocks(self) -> list[Block]:
        """Those that were learned, in order."""
        return [Block.load(folder / "block") for folder in self._learned()]

    def _learned(self) -> Iterator[Path]:
        k = 0
        while (self.folder / str(k) / "measured").exists():
            yield self.folder / str(k)
            k += 1

    def matrices(self, metric: str = "recall@20") -> dict[str, StreamMatrix]:
        """a[k][i] on the test parts, of every kind of model that there is after each block."""
        return matrices([k / "measured" for k in self._learned()], metric)

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
            raise ConfigError(f"the run in {self.folder} has learned no block yet. Feed one: Evolution.step(block).")
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

    def model(self, k: int, stage: str) -> RecommenderModel:
        """A model as it was after a block: `student`, `generated`, `stability`, `plasticity` or `teachers/<name>`."""
        return AutoModel.from_pretrained(self.folder / str(k) / stage).eval()

    @property
    def student(self) -> RecommenderModel:
        """The last student that was accepted: the one to serve."""
        return AutoModel.from_pretrained(self.folder / "student").eval()

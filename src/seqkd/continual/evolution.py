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

from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from ..data.stream import Block, check_stream
from ..errors import ConfigError, DataError, SeqKDError
from ..evaluation.consensus import consensus_metrics
from ..evaluation.stream import block_metrics
from ..processes import this_process
from ..recommenders.recommender import RecommenderModel
from .configuration import check_queries
from .content import check_content, content_of, new_learner
from .fit import fit, part_of
from .learning import Source, distil, learn
from .measured import write_metrics
from .proxies import follow
from .rehearsal import rows_of_everyone
from .run import Run

VALID = "valid"  # what a stage notes of its student: the metric on validation of each block


class Evolution(Run):
    """The loop: every block is learned in stages, each kept in the folder of the run as soon as it is complete.

    Whoever opens the folder again goes on where it is; see `Run` for its arguments.
    """

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
        self._begin()
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
        run("block", lambda folder: blocks[k].save(folder) if this_process().is_main_process else None)
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
        if self._better(k) == "generated":
            self._serve(k, "generated")
        run("measured", lambda folder: self._measure(blocks, folder))  # last: what is measured is learned

    def _train_teacher(self, name: str, blocks: list[Block], folder: Path) -> dict[str, Any]:
        seed, metric, where = self._seed(name), self.config.metric, f"teachers.{name}"
        model = new_learner(blocks[0], blocks, self.config.teachers[name], self.config, where, seed)
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
        student = (
            new_learner(block, blocks, config.student, config, "student", config.seed)
            if config.fresh or k == 0
            else self.model(k, "student")
        )
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
        content = content_of(blocks[k:], self.config.teachers[name], self.config, f"teachers.{name}")
        stage = self.config.update_teacher
        noted = learn(teacher, blocks, self.config, stage, sources, folder / "run", content=content)
        return self._saved(teacher, folder, noted)

    # ---- parts of it ------------------------------------------------------------------------------------------

    def _proxies(self, blocks: list[Block]) -> dict[str, Source]:
        """Both are the same at first, so that one speaks for them."""
        k = len(blocks) - 1
        names = ("stability",) if k == 1 else ("stability", "plasticity")
        return {name: Source(self.model(k, name), blocks[k - 1]) for name in names}

    def _require_next(self, blocks: list[Block]) -> None:
        """Raises:
        DataError: the last of the blocks does not follow the others, is not the one that was begun, or does not tell
            what teachers read about new items.
        ConfigError: it is none for models that know users, or for those that read histories, or too small for what is
            to be measured.
        """
        block, k = blocks[-1], len(blocks) - 1
        if block.number != k:
            raise DataError(f"this is block {block.number}, but the run in {self.folder} waits for {k}.")
        check_stream(blocks)
        begun = self.folder / str(k) / "block"
        if begun.exists() and Block.load(begun).fingerprint != block.fingerprint:
            raise DataError(
                f"block {k} was begun with other interactions or items than these. Give the same to go on with it, or "
                f"remove {self.folder / str(k)} to begin it anew."
            )
        models = {"student": self.config.student, **{f"teachers.{n}": t for n, t in self.config.teachers.items()}}
        check_queries(models, block.queries, f"block {block.number} asks")
        if max(self.config.cutoffs) >= len(block.catalogue):
            raise ConfigError(
                f"cutoffs {self.config.cutoffs} of {len(block.catalogue)} items say nothing. Give smaller ones in a "
                "new run."
            )
        check_content(blocks, self.config)

    def _no_worse(self, student: RecommenderModel, blocks: list[Block]) -> list[float]:
        """The student's metric on validation of each block.

        Raises:
            DataError: it has fallen too far below the one that was not updated.
        """
        *past, block = blocks
        told = self._on_validation(student, block, blocks)
        last = block.number - 1
        served = self._better(last)
        frozen = self.model(last, served)
        before = [*self._noted(last, served), *self._on_validation(frozen, past[-1], [block])]
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

    def _better(self, k: int) -> str:
        """Which student of a block is served in the end: the one that is better on the validation of all blocks."""
        if k == 0:
            return "generated"
        return "generated" if fmean(self._noted(k, "generated")) >= fmean(self._noted(k, "student")) else "student"

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
        if this_process().is_main_process:
            write_metrics(folder, told)

    def _seed(self, name: str) -> int:
        """Of a teacher: those that are alike differ by it."""
        return self.config.seed + list(self.config.teachers).index(name)

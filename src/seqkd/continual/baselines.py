"""Continual learners that need no partner, to compare with: each goes from block to block with one model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import AutoModel

from ..config import ModelConfig
from ..data.stream import Block
from ..data.stream_rows import whole
from ..errors import ConfigError
from ..evaluation.stream import block_metrics
from ..evaluation.stream_matrix import StreamMatrix
from ..processes import this_process
from ..recommenders.recommender import RecommenderModel
from .configuration import ContinualConfig
from .content import content_of, new_learner
from .fit import FitConfig, fit
from .learning import distil, learn
from .ledger import Ledger
from .measured import matrices, write_metrics

SETTINGS = "settings.json"


@dataclass(frozen=True)
class Baseline:
    """How a model goes on with a block.

    Args:
        init: how new rows start, see `grow`.
        methods, weights: what it learns by beside the labels.
        buffer: share of all earlier training that it trains on again, see `whole`.
        longer: it trains as a student is distilled: the training arguments, `every` and `patience` of the run's
            `generate`, none of its methods. Tells whether fine-tuning was only stopped too early.
        frozen: it stays what it is; who it does not know is not answered.
        afresh: a new model, trained on all blocks;
        taught: by teachers that were made afresh, too.
    """

    init: str = "neighbours"
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    buffer: float = 0.0
    longer: bool = False
    frozen: bool = False
    afresh: bool = False
    taught: bool = False


BASELINES = {
    "frozen": Baseline(frozen=True),
    "fine-tune": Baseline(init="random"),
    "fine-tune, longer": Baseline(init="random", longer=True),
    "fine-tune, init": Baseline(),
    "lwf": Baseline(methods={"rrd": {"interesting": 40, "uninteresting": 200}}, weights={"rrd": 1e-4}),
    "buffer": Baseline(buffer=0.1),
    "lwc_kd": Baseline(methods={"lwc_kd": {"max_entities": 256, "candidates": 1024}}),
    "retrain": Baseline(afresh=True),
    "retrain, distilled": Baseline(afresh=True, taught=True),
}


class Chain:
    """One baseline on a stream, kept in a folder as `Evolution` is.

    Args:
        folder: of the chain.
        baseline: what it does.
        config: of the run to compare with: growth, graph, metric and seed are its.
        model: what a model made afresh is.
        stage: how a block is learned; `base` how a model made afresh is.
        first: folder of the model after block 0.
        teachers: by name, the chains that make the teachers of a baseline that is taught.

    Raises:
        ConfigError: what the folder holds was made with other settings.
    """

    def __init__(
        self,
        folder: Path,
        baseline: Baseline,
        config: ContinualConfig,
        *,
        model: ModelConfig,
        stage: FitConfig,
        base: FitConfig,
        first: Path,
        teachers: Mapping[str, Chain] | None = None,
    ) -> None:
        self.folder, self.baseline, self.config = folder, baseline, config
        self.new, self.stage, self.base, self.first = model, stage, base, first
        self.teachers = dict(teachers or {})
        self._require_same()

    @property
    def training(self) -> FitConfig:
        """How it learns a block."""
        how, generate = self.baseline, self.config.generate
        if how.afresh:
            return generate if how.taught else self.base
        stage = replace(self.stage, methods=how.methods, weights=how.weights)
        if how.longer:
            stage = replace(stage, training=generate.training, every=generate.every, patience=generate.patience)
        return stage

    def ledger(self, k: int) -> Ledger:
        """The stages of a block."""
        return Ledger(self.folder / str(k))

    def has(self, k: int) -> bool:
        """Whether it has learned a block."""
        return (self.folder / str(k) / "measured").exists()

    def matrix(self, metric: str) -> StreamMatrix:
        """a[k][i] on the test parts."""
        folders = [self.folder / str(k) / "measured" for k in range(len(list(self.folder.glob("*/measured"))))]
        return matrices(folders, metric)["model"]

    def model(self, k: int) -> RecommenderModel:
        """The model as it was after a block."""
        return self._load(self.folder / str(k) / "model")

    def step(self, blocks: list[Block]) -> None:
        """Learn the last of the blocks, all of which are given."""
        self._note()
        run = self.ledger(len(blocks) - 1).run
        run("model", lambda folder: self._learn(blocks, folder))
        run("measured", lambda folder: self._measure(blocks, folder))

    def _learn(self, blocks: list[Block], folder: Path) -> dict[str, Any]:
        how, noted = self.baseline, {}
        seed, metric = self.config.seed, self.config.metric
        if how.afresh:
            block = whole(blocks, max_length=self.config.blocks.max_length)
            model = new_learner(block, blocks, self.new, self.config, "model", seed)
            if how.taught:
                teachers = {name: chain.model(len(blocks) - 1) for name, chain in self.teachers.items()}
                noted = distil(model, block, block.train, teachers, self.config, folder / "run")
            else:
                noted = fit(model, block, self.training, folder / "run", seed=seed, metric=metric)
        elif len(blocks) == 1:
            model = self._load(self.first)
        else:
            model = self.model(len(blocks) - 2)
        if len(blocks) > 1 and not how.afresh and not how.frozen:
            length = self.config.blocks.max_length
            train = whole(blocks, keep=how.buffer, seed=seed, max_length=length).train if how.buffer else None
            content = content_of(blocks[-1:], self.new, self.config, "model")
            given: dict[str, Any] = {"init": how.init, "content": content, "train": train}
            noted = learn(model, blocks, self.config, self.training, {}, folder / "run", **given)
        this_process().wait_for_everyone()  # who may still read the best checkpoint
        if this_process().is_main_process:
            model.save_pretrained(folder)
            shutil.rmtree(folder / "run", ignore_errors=True)
        return noted

    def _measure(self, blocks: list[Block], folder: Path) -> None:
        model = self.model(len(blocks) - 1)
        grown = blocks[0] if self.baseline.frozen else blocks[-1]
        told = [block_metrics(model, past, grown, ks=self.config.cutoffs) for past in blocks]
        if this_process().is_main_process:
            write_metrics(folder, {"model": told})

    def _settings(self) -> dict[str, Any]:
        """What it is made with, beside what the run itself guards."""
        return {"baseline": asdict(self.baseline), "training": asdict(self.training)}

    def _note(self) -> None:
        """Note the settings beside the blocks, in a file that is there when it is whole."""
        if not (self.folder / SETTINGS).exists() and this_process().is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            fresh = self.folder / f"{SETTINGS}.new"
            fresh.write_text(json.dumps(self._settings(), indent=2), encoding="utf-8")
            os.replace(fresh, self.folder / SETTINGS)

    def _require_same(self) -> None:
        if not (self.folder / SETTINGS).exists():
            return
        noted = json.loads((self.folder / SETTINGS).read_text(encoding="utf-8"))
        mine = json.loads(json.dumps(self._settings()))  # tuples as lists
        # an earlier version may have noted fewer: what came since is by default what was
        other = [name for name in mine if mine[name] != {**mine[name], **noted[name]}]
        if other:
            raise ConfigError(
                f"{self.folder} was made with another {' and '.join(other)} than asked for. Give the same to go on "
                "with it, take another output_dir, or remove the folder to make it anew."
            )

    def _load(self, folder: Path) -> RecommenderModel:
        return AutoModel.from_pretrained(folder).eval()

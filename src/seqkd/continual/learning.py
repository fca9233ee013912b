"""How a model of a stream learns a block: it grows, keeps what it wants of its graph, and trains while it rehearses."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset

from ..data.stream import Block
from ..knowledge import Knowledge
from ..knowledge.export import export
from ..method import Method
from ..methods.lwc_kd import LWCKD, LWCKDConfig
from ..methods.replay import Replay, ReplayConfig
from ..recommenders.edge_recommender import EdgeRecommender
from ..recommenders.recommender import RecommenderModel
from ..settings import make
from .agreement import agree
from .configuration import ContinualConfig
from .fit import FitConfig, fit, methods_of, rows_for
from .graph import renew_edges
from .growth import grow
from .rehearsal import best_pairs, block_edges, listen, rehearsal_rows


class Source(NamedTuple):
    """A model that says what the learner is about to forget, and the block to which it has been grown."""

    model: RecommenderModel
    block: Block


def extend(
    model: RecommenderModel, block: Block, config: ContinualConfig, *, init: str | None = None, content: Any = None
) -> None:
    """Grow a model to a block, in place: its tables, and its graph where it has one; see `grow`."""
    how: Any = {"init": init or config.init, "neighbours": config.neighbours, "lengths": config.lengths}
    grow(model, block, **how, seed=config.seed, content=content)
    if isinstance(model, EdgeRecommender):
        renew_edges(model, torch.from_numpy(block_edges(block)), config.graph, decay=config.decay)


def learn(
    model: RecommenderModel,
    blocks: Sequence[Block],
    config: ContinualConfig,
    stage: FitConfig,
    sources: Mapping[str, Source],
    folder: Path,
    *,
    init: str | None = None,
    content: Any = None,
    train: Dataset | None = None,
) -> dict[str, Any]:
    """Update a model, in place, by the last of `blocks`; it has been grown to the one before.

    Args:
        stage: `replay` among its methods rehearses users known before, by what the `sources` say of them. Methods that
            want knowledge otherwise hear the model itself about the block, as it is before it trains (learning without
            forgetting, Li and Hoiem 2016).
        folder: where checkpoints go while it trains.
        init: of new rows, instead of the configuration's; content: of new items, for a model that reads it.
        train: what is trained on instead of the block's training part.

    Returns:
        What `fit` tells.
    """
    *_, before, block = blocks
    methods: dict[str, Method] = {}
    if "lwc_kd" in stage.methods:
        keep = make(LWCKDConfig, stage.methods["lwc_kd"], "methods.lwc_kd")
        methods["lwc_kd"] = LWCKD(keep, copy.deepcopy(model), torch.from_numpy(block_edges(before)))
    extend(model, block, config, init=init, content=content)
    told: dict[str, Knowledge] = {}
    avoid = None
    if "replay" in stage.methods:
        about = {name: rehearsal_rows(blocks, source.block) for name, source in sources.items()}
        rows = max(about.values(), key=len)
        for name, source in sources.items():
            told[name] = listen(*source, about[name], block, config.rehearsed, len(rows))
        replay = make(ReplayConfig, stage.methods["replay"], "methods.replay")
        if isinstance(replay.draws, dict):  # in the first block one proxy speaks for both
            replay = replace(replay, draws={name: replay.draws[name] for name in sources})
        methods["replay"] = Replay(replay, rows_for(rows, block, model))
        if config.avoided:
            avoid = best_pairs([*told.values()], config.avoided)
    others = replace(stage, methods={n: of for n, of in stage.methods.items() if n not in methods}, weights={})
    methods |= methods_of(others, "methods")
    tables = frozenset().union(*(method.requires for method in methods.values()))
    if tables and not told:
        told = {"before": ask(model, block, block.train if train is None else train, tables, config.list_length)}
    return fit(
        model,
        block,
        stage,
        folder,
        seed=config.seed,
        metric=config.metric,
        methods=methods,
        knowledge=told,
        rows=train,
        avoid=avoid,
    )


def distil(
    student: RecommenderModel,
    block: Block,
    rows: Dataset,
    teachers: Mapping[str, RecommenderModel],
    config: ContinualConfig,
    folder: Path,
) -> dict[str, Any]:
    """Train a student, in place, by the stage `generate`: from labels, and from what teachers say together.

    Args:
        rows: of training; teachers are asked about those without a label, too.
        folder: where checkpoints go while it trains.

    Returns:
        What `fit` tells.
    """
    methods = methods_of(config.generate, "generate")
    tables = frozenset().union(*(method.requires for method in methods.values()))
    told = {name: ask(teacher, block, rows, tables, config.list_length) for name, teacher in teachers.items() if tables}
    return fit(
        student,
        block,
        config.generate,
        folder,
        seed=config.seed,
        metric=config.metric,
        methods=methods,
        knowledge={"teachers": agree(told)} if told else {},
        rows=rows,
    )


def ask(model: RecommenderModel, block: Block, rows: Dataset, tables: frozenset[str], k: int) -> Knowledge:
    """What a model says about training rows of a block to which it has been grown."""
    wanted = tuple(sorted(tables - {"query_scores"}))
    return export(model, rows, split=block, part="train", tables=wanted, k=k, filter_seen=True, batch_size=512)

"""From trained teachers to the knowledge a method reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ..batches.curriculum import Curriculum
from ..config import Experiment
from ..knowledge import Knowledge
from ..knowledge.common_lists import common_lists, labels_of
from ..knowledge.ensemble import assemble, ensemble
from ..knowledge.export import export
from ..method import Method
from ..methods.ckd_mdsr import CKDMDSR, CKDMDSRConfig
from ..recommenders.recommender import RecommenderModel
from ..settings import make
from .domains import Domain
from .teachers import fold_of_rows


def method_of(experiment: Experiment) -> CKDMDSR:
    """The method with the experiment's settings."""
    curriculum = experiment.method.get("curriculum", {})
    made = None if curriculum is None else make(Curriculum, curriculum, "method.curriculum")
    return CKDMDSR(make(CKDMDSRConfig, {**experiment.method, "curriculum": made}, "method"))


def ask(members: Sequence[RecommenderModel], domain: Domain, *, folds: int, k: int, tables: Sequence[str]) -> Knowledge:
    """What a teacher of one or several members says about every training query.

    With folds, each member answers for the users it never saw; otherwise members are averaged.
    """
    told = [
        export(member, domain.split.train, split=domain.split, part="train", tables=tables, k=k) for member in members
    ]
    if folds > 1:
        rows = domain.part("train")
        fold_of, fold_of_row = torch.full((rows.num_queries,), -1), fold_of_rows(domain, folds).tolist()
        for row, (items, first, start, _) in enumerate(rows):
            fold_of[start : start + len(items) - first + 1] = fold_of_row[row]
        return assemble([(one, (fold_of == fold).nonzero().squeeze(1)) for fold, one in enumerate(told)])
    return told[0] if len(told) == 1 else ensemble(told, k=k)


def teach(
    experiment: Experiment, domain: Domain, teachers: Mapping[str, Sequence[RecommenderModel]]
) -> tuple[Method, dict[str, Knowledge]]:
    """The method, and the knowledge of all teachers in the form it reads."""
    method = method_of(experiment)
    in_batch = method.config.candidates == "in_batch"
    tables = ("query_embeddings", "item_embeddings") if in_batch else ("query_topk",)
    told = {
        name: ask(members, domain, folds=experiment.teachers[name].folds, k=2 * experiment.list_length, tables=tables)
        for name, members in teachers.items()
    }
    if not in_batch:
        told = common_lists(told, k=experiment.list_length, labels=labels_of(domain.part("train")))
    return method, told

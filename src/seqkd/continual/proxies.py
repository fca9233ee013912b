"""Proxies: slow copies of past students, who remember what the student forgets (CCD, KDD'24, arXiv 2405.19046)."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch

from ..catalogue import Catalogue
from ..errors import ConfigError, DataError
from ..recommenders.recommender import RecommenderModel
from ..recommenders.user_recommender import UserRecommender

Recommender = TypeVar("Recommender", bound=RecommenderModel)


@torch.no_grad()
def follow(proxy: Recommender | None, student: Recommender, retain: float) -> Recommender:
    """The proxy of the next block, `w proxy + (1 - w) student`: a new model, in evaluation.

    All weights are averaged. Rows that tables of users and items have gained are the student's, and so is whatever is
    no weight: its graph, its counts and its ids. The stability proxy retains much (w = 0.9), the plasticity proxy
    little; the paper's figure lets the one follow from the other: `follow(plasticity, stability, w)`.

    Args:
        proxy: as it was; without one, at the first block, the student is its own.
        student: of the same architecture, grown as far as the proxy or further.
        retain: w in 0..1. Neither 1 nor 0 changes a bit of what is retained or taken over.

    Raises:
        ConfigError: w is none, or the two are not of one architecture. DataError: they number items or users otherwise.
    """
    if not 0 <= retain <= 1:
        raise ConfigError(f"retain must lie in 0..1, got {retain}.")
    _require_one_kind(proxy, student)
    mode = student.training
    followed = copy.deepcopy(student.eval())  # which lets go of tables of a step that never ended
    student.train(mode)
    followed.zero_grad(set_to_none=True)
    if proxy is None:
        return followed
    past = dict(proxy.named_parameters())
    for name, parameter in followed.named_parameters():
        old = past[name].to(parameter)
        known = parameter[: len(old)] if old.dim() else parameter
        known.lerp_(old, retain)
    return followed


def _require_one_kind(proxy: RecommenderModel | None, student: RecommenderModel) -> None:
    if proxy is None:
        return
    if type(proxy) is not type(student):
        raise ConfigError(
            f"a {type(proxy).__name__} cannot follow a {type(student).__name__}: a proxy is a copy of past students. "
            "Begin with follow(None, student, retain)."
        )
    new_items, new_users = _gained("items", proxy.catalogue, student.catalogue), 0
    if isinstance(proxy, UserRecommender):
        new_users = _gained("users", proxy.users, student.users)
    before, now = ({name: p.shape for name, p in model.named_parameters()} for model in (proxy, student))
    for name in before.keys() | now.keys():
        if name in before and name in now and _grew(before[name], now[name], (0, new_items, new_users)):
            continue
        shapes = [tuple(shapes[name]) if name in shapes else "none" for shapes in (before, now)]
        raise ConfigError(
            f"proxy and student are not of one architecture: {name} is {shapes[0]} of the proxy and {shapes[1]} of the "
            f"student, who knows {new_items} more items and {new_users} more users. Average models of one config."
        )


def _gained(what: str, before: Catalogue | None, now: Catalogue | None) -> int:
    """How many ids the student knows beyond those of the proxy."""
    if before is None or now is None:
        raise ConfigError(
            f"proxy and student must know their {what} by external ids. Call set_catalogue and set_users."
        )
    if now.item_ids[: len(before)] != before.item_ids:
        raise DataError(
            f"proxy and student number {what} otherwise, so that rows of different ones would be averaged. Ids of a "
            "stream only grow: take both from blocks of one stream, the student from no earlier one."
        )
    return len(now) - len(before)


def _grew(before: torch.Size, now: torch.Size, rows: tuple[int, ...]) -> bool:
    """Whether one shape is the other, but for so many more rows."""
    return before == now or (before[1:] == now[1:] and len(before) == len(now) > 0 and now[0] - before[0] in rows)

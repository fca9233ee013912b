"""From the items of one catalogue to those of another."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..batches.collators import SequenceDataset
from ..catalogue import PADDING, Catalogue
from ..data.split import Split
from ..errors import KnowledgeError
from .store.table import Table, blank

CHUNK = 65_536  # lists renamed at a time


def require_same_items(theirs: Catalogue, ours: Catalogue, teacher: str) -> None:
    """Refuse a student's catalogue that is not the teacher's, naming both.

    Raises:
        KnowledgeError: they differ.
    """
    if theirs != ours:
        raise KnowledgeError(
            f"knowledge of {teacher} is about {len(theirs)} items (fingerprint {theirs.fingerprint[:12]}), the student "
            f"has {len(ours)} ({ours.fingerprint[:12]}): {_difference(theirs, ours)}. Export it for this catalogue, or "
            'use align(catalogue, how="intersection").'
        )


def require_same_queries(answered: int, split: Split, part: str, teacher: str) -> None:
    """Refuse a split whose part asks more or fewer queries than a teacher answered.

    Raises:
        KnowledgeError: the numbers differ.
    """
    asked = SequenceDataset(split.part(part), len(split.catalogue)).num_queries
    if answered != asked:
        raise KnowledgeError(f"{teacher} answers {answered} queries of {part}, but this split asks {asked}.")


def _difference(theirs: Catalogue, ours: Catalogue) -> str:
    pairs = enumerate(zip(theirs.item_ids, ours.item_ids, strict=False), start=1)
    for row, (their, our) in pairs:
        if their != our:
            return f"row {row} is {their!r} there and {our!r} here"
    longer = max(theirs.item_ids, ours.item_ids, key=len)
    return f"the shorter list ends before {longer[min(len(theirs), len(ours))]!r}"


def item_map(old: Catalogue, new: Catalogue) -> Tensor:
    """`(I_old+1,)` int64: the new row of every old row, 0 where the new catalogue lacks the item."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), torch.from_numpy(new.encode(old.item_ids))])


def realign(tables: Mapping[str, Table], old: Catalogue, new: Catalogue) -> tuple[dict[str, Table], dict[str, float]]:
    """Tables in the rows of another catalogue, and what is covered.

    Returns:
        the tables; `items`, the share of new items that the old catalogue knows, and `mass`, the mean share of a list's
        probability that stays (with `query_topk`).

    Raises:
        KnowledgeError: they share no item.
    """
    out = {name: table for name, table in tables.items() if name.startswith("query_")}
    old_to_new, new_to_old = item_map(old, new), item_map(new, old)  # (I_old+1,), (I+1,)
    if not new_to_old.any():
        raise KnowledgeError(
            f"no item in common: the knowledge is about items like {old.item_ids[:3]}, the student's are like "
            f"{new.item_ids[:3]}. Use the same item ids in both data sets."
        )
    coverage = {"items": float((new_to_old > 0).sum()) / len(new)}
    if "query_topk" in tables:
        topk, scores = tables["query_topk"], tables["query_scores"]
        parts = [rename_lists(topk[rows], scores[rows], old_to_new) for rows in torch.arange(len(topk)).split(CHUNK)]
        new_topk, new_scores, mass = (torch.cat(part) for part in zip(*parts, strict=True))
        out |= {"query_topk": Table([new_topk]), "query_scores": Table([new_scores])}
        coverage["mass"] = float(mass.nanmean().nan_to_num())
    if "query_seen_topk" in tables:
        out["query_seen_topk"] = Table([rename_ids(tables["query_seen_topk"].all(), old_to_new)])
    known = new_to_old > 0
    for name in tables.keys() - out.keys():
        grown = blank(name, (len(new) + 1, *tables[name].shape[1:]), tables[name].dtype)
        grown[known] = tables[name][new_to_old[known]]
        out[name] = Table([grown])
    return out, coverage


def rename_lists(topk: Tensor, scores: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rename the items of lists; an item without a new row leaves its list, those behind it move up.

    Args:
        topk: `(R, M)` old rows; `scores (R, M)`; `rows (I_old+1,)` from `item_map`.

    Returns:
        `topk (R, M)`, `scores (R, M)` and the probability mass that stays, `(R,)`, NaN for a list that was empty.
    """
    empty = topk == PADDING
    renamed = rows[topk.long()].to(topk.dtype)  # (R, M)
    gone = renamed == PADDING
    mass = scores.float().masked_fill(empty, torch.finfo(torch.float32).min).softmax(dim=1)
    kept = mass.masked_fill(gone, 0).sum(dim=1).masked_fill(empty.all(dim=1), torch.nan)
    order = gone.to(torch.uint8).argsort(dim=1, stable=True)
    return renamed.gather(1, order), scores.masked_fill(gone, torch.finfo(scores.dtype).min).gather(1, order), kept


def rename_ids(lists: Tensor, rows: Tensor) -> Tensor:
    """As `rename_lists`, of lists `(R, M)` that bring no scores."""
    renamed = rows[lists.long()].to(lists.dtype)
    return renamed.gather(1, (renamed == PADDING).to(torch.uint8).argsort(dim=1, stable=True))

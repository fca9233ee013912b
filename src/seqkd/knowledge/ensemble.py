"""From several teachers' lists to one: averaged, by rank consensus, or each teacher for the queries it may answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..catalogue import PADDING
from ..errors import KnowledgeError
from ..functional.list_ranks import ranks_in
from .knowledge import Knowledge, Source
from .store.table import blank

CHUNK = 16_384  # rows combined at a time,
ENTRIES = 2**23  # or fewer, so that their lists together are no longer
FILTER_SEEN = "filter_seen"  # the option of `export` that holds for what is combined, too
LOWEST = torch.finfo(torch.float32).min
LOG_IMPORTANCE: dict[str, Callable[[Tensor], Tensor]] = {  # of ranks from 0
    "exponential": lambda ranks: -ranks / 10,  # exp(-r / 10), ConCF (WWW'22) and HetComp (WWW'23)
    "power": lambda ranks: -0.05 * torch.log1p(ranks),  # (1 / (r + 1))^0.05, CCD (KDD'24)
}


def ensemble(
    knowledges: Mapping[str, Knowledge] | Sequence[Knowledge],
    weights: Mapping[str, float] | Sequence[float] | None = None,
    *,
    tau: float = 1.0,
    k: int | None = None,
) -> Knowledge:
    """The teachers' average: `p = sum_t w_t softmax(scores_t / tau)` over the union of their lists.

    Args:
        knowledges: about the same items, split and part, each with `query_topk`.
        weights: one per teacher, made to sum to 1; equal by default. An empty list has no say in its row.
        tau: temperature of every teacher's softmax over its own list.
        k: M of the result, the items of highest `p`; default the longest list given.

    Returns:
        `query_topk` and float32 `query_scores = log p`, not renormalised after the cut. Whether the lists were exported
        with `filter_seen` is said as by the teachers.

    Raises:
        KnowledgeError: the teachers disagree in items, split, part, `filter_seen` or rows, or weights do not fit.
    """
    return _merged(
        "ensemble", "log probability", knowledges, weights, k, {"tau": tau},
        lambda lists, share, k: average(lists, share, tau=tau, k=k),
    )  # fmt: skip


def rank_consensus(
    knowledges: Mapping[str, Knowledge] | Sequence[Knowledge],
    weights: Mapping[str, float] | Sequence[float] | None = None,
    *,
    importance: str = "exponential",
    k: int | None = None,
) -> Knowledge:
    """The teachers' consensus, of which only ranks count: the mean of an item's importance in each list.

    For teachers whose scores cannot be compared: what one calls a probability, a distance is for another.

    Args:
        knowledges, weights: as of `ensemble`.
        importance: of rank r from 0: `exponential`, `exp(-r / 10)`, all in the first few dozen places; or `power`,
            `(1 / (r + 1))^0.05`, which falls to .73 at rank 500. An item that a teacher did not list gets the rank
            behind its last, which is the best that it can have: export lists longer than k.
        k: M of the result, the items of highest importance; default the longest list given.

    Returns:
        `query_topk` and float32 `query_scores = log importance`.

    Raises:
        KnowledgeError: as of `ensemble`, or there is no such importance.
    """
    if importance not in LOG_IMPORTANCE:
        raise KnowledgeError(f"importance must be one of {sorted(LOG_IMPORTANCE)}, got {importance!r}.")
    return _merged(
        "consensus", "log importance", knowledges, weights, k, {"importance": importance},
        lambda lists, share, k: consensus([topk for topk, _ in lists], share, importance=importance, k=k),
    )  # fmt: skip


def by_rank(knowledge: Knowledge, scale: float = 10.0) -> Knowledge:
    """The same lists, of which only the order counts: rank r from 0 has the score `-r / scale`.

    A softmax of it falls to 1/e every `scale` places. That of a `power` importance is nearly flat: it says which items
    are listed, hardly in what order, to a method that reads scores (full cross-entropy).

    Raises:
        KnowledgeError: scale is not above 0.
    """
    if not scale > 0:
        raise KnowledgeError(f"scale must be above 0, got {scale}.")
    tables = {name: knowledge.table(name) for name in knowledge.tables}
    topk = tables["query_topk"]
    tables["query_scores"] = (
        (torch.arange(topk.shape[1]) / -scale).expand(topk.shape).masked_fill(topk == PADDING, LOWEST)
    )
    told = knowledge.source
    source = replace(told, similarity="rank", temperature=1.0, options={**told.options, "rank_scale": scale})
    return Knowledge.from_tables(tables, source=source, catalogue=knowledge.catalogue)


def _merged(
    how: str,
    similarity: str,
    knowledges: Mapping[str, Knowledge] | Sequence[Knowledge],
    weights: Mapping[str, float] | Sequence[float] | None,
    k: int | None,
    options: dict,
    merge: Callable[[Sequence[tuple[Tensor, Tensor]], Tensor, int], tuple[Tensor, Tensor]],
) -> Knowledge:
    """One knowledge by `merge(lists, weights, k)`, some rows at a time."""
    named = knowledges if isinstance(knowledges, Mapping) else {str(at): one for at, one in enumerate(knowledges)}
    teachers = list(named.values())
    _require_same(teachers)
    if len({teacher.num_queries for teacher in teachers}) != 1:
        rows = {name: teacher.num_queries for name, teacher in named.items()}
        raise KnowledgeError(f"teachers of an ensemble must answer the same queries, but their rows are {rows}.")
    share = torch.tensor(_weights(named, weights))
    lengths = [teacher.tables["query_topk"].shape[1] for teacher in teachers]
    n, m = teachers[0].num_queries, k or max(lengths)
    topk, scores = blank("query_topk", (n, m), torch.int32), blank("query_scores", (n, m), torch.float32)
    for rows in torch.arange(n).split(min(CHUNK, max(ENTRIES // sum(lengths), 1))):
        lists = [(teacher.rows("query_topk", rows), teacher.rows("query_scores", rows)) for teacher in teachers]
        items, values = merge(lists, share, m)
        topk[rows, : items.shape[1]], scores[rows, : items.shape[1]] = items.int(), values
    options = {
        "teachers": {name: teacher.source.fingerprint(teacher.catalogue) for name, teacher in named.items()},
        "weights": share.tolist(),
        **options,
        "k": m,
    }
    return _combined(how, teachers, {"query_topk": topk, "query_scores": scores}, options, similarity)


def average(lists: Sequence[tuple[Tensor, Tensor]], weights: Tensor, *, tau: float, k: int) -> tuple[Tensor, Tensor]:
    """The mixture of T lists: items `(R, min(k, sum of M))` by falling log-probability, 0 at empty places.

    Args:
        lists: for each teacher `topk (R, M_t)` and `scores (R, M_t)`.
        weights: `(T,)`, positive.
    """
    share = _log_share([topk for topk, _ in lists], weights)
    log_p = [
        (scores.float() / tau).masked_fill(topk == PADDING, LOWEST).log_softmax(dim=1) + share[:, t : t + 1]
        for t, (topk, scores) in enumerate(lists)
    ]
    items, order = torch.cat([topk for topk, _ in lists], dim=1).long().sort(dim=1)  # (R, S): equal items side by side
    flat = torch.cat(log_p, dim=1).gather(1, order).masked_fill(items == PADDING, LOWEST)
    group = torch.zeros_like(items)  # number of the item within its row
    group[:, 1:] = (items[:, 1:] != items[:, :-1]).cumsum(dim=1)
    peak = torch.full_like(flat, LOWEST).scatter_reduce(1, group, flat, "amax")
    total = torch.zeros_like(flat).scatter_add(1, group, (flat - peak.gather(1, group)).exp())
    merged = torch.zeros_like(items).scatter(1, group, items)
    log_sum = (peak + total.log()).masked_fill(merged == PADDING, LOWEST)  # log-sum-exp of every group
    best = log_sum.topk(min(k, items.shape[1]), dim=1)
    return merged.gather(1, best.indices), best.values


def consensus(lists: Sequence[Tensor], weights: Tensor, *, importance: str, k: int) -> tuple[Tensor, Tensor]:
    """The consensus of T lists: items `(R, min(k, sum of M))` by falling log importance, 0 at empty places.

    Among equals, of which unlike teachers make many, the lower id comes first.

    Args:
        lists: of each teacher, `topk (R, M_t)`, best first.
        weights: `(T,)`, positive.
    """
    share = _log_share(lists, weights)  # (R, T)
    items = torch.from_numpy(np.sort(torch.cat([*lists], dim=1).numpy(), axis=1))  # (R, S)
    items[:, 1:].masked_fill_(items[:, 1:] == items[:, :-1], PADDING)
    total = torch.full(items.shape, LOWEST)
    for t, topk in enumerate(lists):
        unlisted = (topk != PADDING).sum(dim=1, keepdim=True)  # the rank behind the last
        ranks = ranks_in(topk, items).minimum(unlisted)
        total = torch.logaddexp(total, LOG_IMPORTANCE[importance](ranks.float()) + share[:, t : t + 1])
    best = total.masked_fill(items == PADDING, LOWEST).sort(dim=1, descending=True, stable=True)
    return items.gather(1, best.indices[:, :k]), best.values[:, :k]


def _log_share(lists: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Log weights `(R, T)` of the teachers in each row, where those whose list is empty have no say."""
    answers = torch.stack([(topk != PADDING).any(dim=1) for topk in lists], dim=1)
    return weights.log().expand_as(answers).masked_fill(~answers, LOWEST).log_softmax(dim=1)


def assemble(parts: Sequence[tuple[Knowledge, Tensor]]) -> Knowledge:
    """Cross-fitting: every query answered by the one teacher that is given for it, which never saw its label.

    Args:
        parts: knowledge and the `(n,)` query ids taken from it; no id twice. Ids in no part stay empty.

    Raises:
        KnowledgeError: the parts disagree in items, split, part, `filter_seen` or list shape, or share a query.
    """
    teachers = [knowledge for knowledge, _ in parts]
    _require_same(teachers)
    kinds = {(t.tables["query_topk"].shape[1:], t.tables["query_scores"].dtype) for t in teachers}
    if len(kinds) != 1:
        raise KnowledgeError(f"lists to assemble must have one length and dtype, but have {sorted(map(str, kinds))}.")
    asked = torch.cat([ids.cpu() for _, ids in parts])
    unique, times = asked.unique(return_counts=True)
    if len(unique) != len(asked):
        raise KnowledgeError(f"queries {unique[times > 1][:5].tolist()} are in two parts. Give each to one teacher.")
    n = max(teacher.num_queries for teacher in teachers)
    tables = {}
    for name in ("query_topk", "query_scores"):
        like = teachers[0].tables[name]
        tables[name] = blank(name, (n, *like.shape[1:]), like.dtype)
        for knowledge, ids in parts:
            tables[name][ids.cpu()] = knowledge.rows(name, ids.cpu())
    digests = [hashlib.sha256(ids.cpu().long().numpy().tobytes()).hexdigest() for _, ids in parts]
    return _combined("assembled", teachers, tables, {"queries_sha256": digests})


def _weights(named: Mapping[str, Knowledge], weights: Mapping[str, float] | Sequence[float] | None) -> list[float]:
    if isinstance(weights, Mapping):
        if set(weights) != set(named):
            raise KnowledgeError(f"weights are for {sorted(weights)}, the teachers are {sorted(named)}.")
        weights = [weights[name] for name in named]
    values = [1.0] * len(named) if weights is None else [float(weight) for weight in weights]
    if len(values) != len(named) or min(values) <= 0:
        raise KnowledgeError(
            f"{len(named)} teachers need as many weights above 0, got {values}. Leave out a teacher of weight 0."
        )
    return [value / sum(values) for value in values]


def _require_same(teachers: Sequence[Knowledge]) -> None:
    if not teachers:
        raise KnowledgeError("there is no knowledge to combine; give at least one.")
    first = teachers[0]
    for teacher in teachers:
        teacher.check(catalogue=first.catalogue, part=first.source.part)
        if teacher.source.split_fingerprint != first.source.split_fingerprint:
            raise KnowledgeError(
                f"{teacher.source.teacher} speaks about split {teacher.source.split_fingerprint[:12]}, "
                f"{first.source.teacher} about {first.source.split_fingerprint[:12]}. Export both on the same split."
            )
        if "query_topk" not in teacher.tables:
            raise KnowledgeError(f"{teacher!r} has no query_topk. Export it with tables=('query_topk',).")
        seen, theirs = (said.source.options.get(FILTER_SEEN) for said in (first, teacher))
        if seen != theirs:
            raise KnowledgeError(
                f"the lists of {first.source.teacher} have filter_seen={seen}, those of {teacher.source.teacher} "
                f"filter_seen={theirs}: an item that a teacher may not list is none that it ranks low. Export both "
                "alike; lists made by hand say it in Source(options={'filter_seen': ...}), and None says nothing."
            )


def _combined(
    how: str, teachers: Sequence[Knowledge], tables: Mapping[str, Tensor], options: dict, similarity: str | None = None
) -> Knowledge:
    """With what `query_scores` now are, logits of temperature 1; or as the first teacher says."""
    first = teachers[0].source
    revisions = json.dumps([how, [teacher.source.teacher_revision for teacher in teachers], options], sort_keys=True)
    if FILTER_SEEN in first.options:  # as of all
        options = {**options, FILTER_SEEN: first.options[FILTER_SEEN]}
    source = Source(
        teacher=f"{how}({', '.join(teacher.source.teacher for teacher in teachers)})",
        teacher_revision=hashlib.sha256(revisions.encode()).hexdigest(),
        split_fingerprint=first.split_fingerprint,
        part=first.part,
        similarity=similarity or first.similarity,
        temperature=1.0 if similarity else first.temperature,
        options=options,
    )
    return Knowledge.from_tables(tables, source=source, catalogue=teachers[0].catalogue)

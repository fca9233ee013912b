"""RCE-KD: rejuvenated cross-entropy for knowledge distillation (Zhu and Zhang 2025, arXiv 2509.20989).

Cross-entropy on a part of the items bounds the ranking of that part only if it holds the student's best items, but the
teacher's best are what is to be learned. So there are two parts: the student's best, and the teacher's best amid items
sampled from the top of the student's ranking. The more of the teacher's the sample holds, the less the second weighs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError
from ..functional.distinct import first_of_each, spread
from ..knowledge import Knowledge
from ..method import Epoch, Method
from ..recommenders.recommender import RecommenderModel, RecommenderOutput

CHUNK = 2**24  # scores of the student held at a time
CAP = 50  # teacher items that the sampling weight counts at most


@dataclass(frozen=True)
class RCEKDConfig:
    """Symbols as in the paper, whose lambda (1 to 1e5, per data set) weighs a sum over the users of a batch."""

    top: int = 50  # K, of Q_S and Q_T
    sampled: int = 50  # L, of A
    list_length: int = 100  # places of the student's ranking from which A is sampled
    beta: float = 3.0  # of the weight w = exp(-beta overlap)
    temperature: float = 1.0  # tau, of teacher and student
    sampling_temperature: float = 10.0  # T, of the sampling weights
    refresh: int = 1  # epochs for which a student's ranking is kept; 0 ranks in every step

    def __post_init__(self) -> None:
        if not 1 <= self.top <= self.list_length or not 1 <= self.sampled <= self.list_length:
            raise ConfigError(
                f"top={self.top} and sampled={self.sampled} must lie in 1..list_length={self.list_length}."
            )
        if not self.temperature > 0 or not self.sampling_temperature > 0 or self.beta < 0 or self.refresh < 0:
            raise ConfigError("temperature and sampling_temperature must be above 0, beta and refresh not below.")


class Parts(NamedTuple):
    """Items, or scores of them: Q_S `(n, K)`, A `(n, L)` and Q_T `(n, K)`."""

    student_top: Tensor
    sampled: Tensor
    teacher_top: Tensor


class RCEKD(Method):
    """`(1 - w) CE(Q_S) + w CE(A + (Q_T - A - Q_S))`, one loss per query; both softmaxes are renormalised on each part.

    The student's ranking of a query is made when an epoch first asks it, from the query embedding of that step, and is
    kept for the epoch: N list_length int32 that are saved with the run. One full ranking costs Q x I scores.

    Knowledge: `query_topk` (with the items of training; the paper leaves them in), `query_embeddings` and
    `item_embeddings`, by which the teacher scores what it did not list. Memory: Q (2K+L) d for its vectors,
    130 MB measured on CiteULike.
    """

    config_class = RCEKDConfig
    config: RCEKDConfig
    paper = "arXiv:2509.20989"
    student_top: Tensor  # (N, list_length) the student's ranking of each query, best first
    prepared: Tensor  # (N,) the period for which it was made; -1 for none

    def __init__(self, config: RCEKDConfig | None = None) -> None:
        super().__init__(config)
        self.period = 0

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"query_topk", "query_embeddings", "item_embeddings"})

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        rows = max(said.num_queries for said in knowledge.values()) if self.config.refresh else 0
        length = min(self.config.list_length, student.config.num_items)
        self.register_buffer("student_top", torch.zeros(rows, length, dtype=torch.int32))
        self.register_buffer("prepared", torch.full((rows,), -1))

    def on_epoch_begin(self, epoch: Epoch) -> None:
        self.period = epoch.number // max(self.config.refresh, 1)

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor:
        config = self.config
        first = first_of_each(batch["query_ids"])
        queries = output.query_embeddings[first]
        ranking = self.rank(student, queries.detach(), batch["query_ids"][first])  # (n, list_length)
        losses = []
        for tables in knowledge.values():
            teacher_top = tables["query_topk"][first, : config.top].long()  # Q_T
            sampled = sample(ranking, teacher_top, config.sampled, config.sampling_temperature)  # A
            parts = Parts(ranking[:, : config.top], sampled, teacher_top)
            items, widths = torch.cat(parts, dim=1), [part.shape[1] for part in parts]  # (n, 2K+L)
            taught = teacher_scores(tables["query_embeddings"][first], tables["item_embeddings"], items)
            ours, theirs = (Parts(*scores.split(widths, dim=1)) for scores in (student.score(queries, items), taught))
            losses.append(rejuvenated(parts, ours, theirs, config))
        return spread(torch.stack(losses).mean(dim=0), first, batch)

    @torch.no_grad()
    def rank(self, student: RecommenderModel, queries: Tensor, query_ids: Tensor) -> Tensor:
        """The student's ranking of distinct queries `(n,)`, `(n, list_length)`; made anew where it is out of date."""
        if not self.config.refresh:
            return best_items(student, queries, self.student_top.shape[1])
        stale = self.prepared[query_ids] != self.period
        if stale.any():
            ids = query_ids[stale]
            self.student_top[ids] = best_items(student, queries[stale], self.student_top.shape[1]).int()
            self.prepared[ids] = self.period
        return self.student_top[query_ids].long()


def best_items(student: RecommenderModel, queries: Tensor, length: int) -> Tensor:
    """The items of highest score for each query, `(n, length)`, best first."""
    parts = queries.split(max(CHUNK // (student.config.num_items + 1), 1))
    return torch.cat([student.score(part).topk(length, dim=1).indices for part in parts])


def teacher_scores(queries: Tensor, table: Tensor, items: Tensor) -> Tensor:
    """What the teacher gives `items (n, C)` by `queries (n, d)` and its item `table (I+1, d)`: `(n, C)` float32."""
    return (table[items].float() @ queries.float()[:, :, None]).squeeze(2)


def sample(ranking: Tensor, teacher_top: Tensor, size: int, temperature: float) -> Tensor:
    """A `(n, L)` of the student's `ranking (n, list)` without replacement (Gumbel top-k).

    A place weighs `exp((min(50, teacher items from there on) + 1) / T)`: what stands above many of the teacher's items
    is sampled most.
    """
    shared = (ranking[:, :, None] == teacher_top[:, None, :]).any(dim=2)  # (n, list)
    below = shared.flip(1).cumsum(dim=1).flip(1).clamp(max=CAP)
    noise = -torch.empty(below.shape, device=below.device).exponential_().log()
    chosen = ((below + 1) / temperature + noise).topk(min(size, ranking.shape[1]), dim=1).indices
    return ranking.gather(1, chosen)


def rejuvenated(items: Parts, student: Parts, teacher: Parts, config: RCEKDConfig) -> Tensor:
    """The loss of each query, `(n,)`, from the scores of its items; item 0 is an empty place."""
    in_sample = is_among(items.teacher_top, items.sampled)
    empty = items.teacher_top == 0
    overlap = (in_sample & ~empty).sum(dim=1) / (~empty).sum(dim=1).clamp(min=1)  # share of Q_T that A holds
    weight = torch.exp(-config.beta * overlap)  # in float32 always, as the authors'
    repeated = in_sample | is_among(items.teacher_top, items.student_top) | empty
    mask = torch.cat([items.sampled == 0, repeated], dim=1)
    best = cross_entropy(student.student_top, teacher.student_top, items.student_top == 0, config.temperature)
    rest = cross_entropy(torch.cat(student[1:], dim=1), torch.cat(teacher[1:], dim=1), mask, config.temperature)
    return (1 - weight) * best + weight * rest


def cross_entropy(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of two softmaxes over the unmasked columns, `(n,)`, at least float32."""
    dtype = torch.promote_types(student.dtype, torch.float32)
    student, teacher = student.to(dtype) / temperature, teacher.to(dtype) / temperature
    log_q = student.masked_fill(mask, torch.finfo(student.dtype).min).log_softmax(dim=1).masked_fill(mask, 0.0)
    p = teacher.masked_fill(mask, torch.finfo(teacher.dtype).min).softmax(dim=1)
    return -(p * log_q).sum(dim=1)


def is_among(items: Tensor, others: Tensor) -> Tensor:
    """Which of `items (n, K)` are in the same row of `others (n, L)`."""
    return (items[:, :, None] == others[:, None, :]).any(dim=2)

"""CD: collaborative distillation for top-N recommendation (Lee et al., ICDM'19, arXiv 1911.05276).

A teacher's score of an item that a user lacks says how far that is a positive or a negative. The student is told so
about few items for each user, mostly of the top of a ranking: its own, whose errors are what users would see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ..errors import ConfigError
from ..functional.distinct import first_of_each, spread
from ..functional.list_ranks import ranks_in
from ..functional.rank_sampling import by_position
from ..functional.soft_bce import soft_bce
from ..knowledge import Knowledge
from ..method import Epoch, Method
from ..recommenders.recommender import RecommenderModel, RecommenderOutput
from ..teaching.guided_lists import GuidedLists, Rankings
from ..teaching.list_checks import require_length


@dataclass(frozen=True)
class CDConfig:
    """The specification gives the formula, no values: b and t1 are to be tuned to the scores of the teacher.

    The paper's lambda multiplies a sum over the users of a batch, beside a sum over its pairs. Here both are means: the
    weight is the paper's times distinct users / pairs.
    """

    sampled: int = 40  # items of each query
    guide: str = "student"  # whose ranking is sampled; or "teacher"
    sampling_temperature: float = 10.0  # T, of the sampling weights exp(-(r + 1) / T)
    list_length: int = 500  # places of that ranking
    bias: float = 0.0  # b, added to the teacher's scores
    temperature: float = 1.0  # t1, which divides them then
    refresh: int = 1  # epochs for which the student's ranking is kept; items are drawn in each

    def __post_init__(self) -> None:
        if self.guide not in ("student", "teacher"):
            raise ConfigError(f"guide must be 'student' or 'teacher', got {self.guide!r}.")
        if not 1 <= self.sampled <= self.list_length:
            raise ConfigError(f"sampled={self.sampled} must lie in 1..list_length={self.list_length}.")
        if not self.temperature > 0 or not self.sampling_temperature > 0 or self.refresh < 1:
            raise ConfigError("temperature and sampling_temperature must be above 0, refresh at least 1.")


class Labelled(NamedTuple):
    """Items `(n, K)`, 0 for an empty place, and how far each is a positive, `(n, K)` in 0..1."""

    items: Tensor
    labels: Tensor


class CD(Method):
    """Binary cross-entropy between `sigma((T + b) / t1)` and `sigma(S)`, summed over the sampled items of a query.

    Knowledge: `query_topk` and `query_scores`, exported with `filter_seen=True` and k=list_length. An item that a
    teacher did not list gets the lowest score of its list, which it cannot exceed. Memory: N list_length int32, saved
    with the run (none where the teacher guides), and N 2K for each teacher.
    """

    config_class = CDConfig
    config: CDConfig
    paper = "arXiv:1911.05276"
    lists: GuidedLists

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"query_topk", "query_scores"})

    @property
    def reads(self) -> frozenset[str]:
        return frozenset()  # items are drawn when an epoch begins

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        length = self.config.list_length if self.config.guide == "student" else 0
        require_length(knowledge, length, student.config.num_items)
        self.lists = GuidedLists(knowledge, student.config.num_items, length, self.config.refresh)

    def on_epoch_begin(self, epoch: Epoch) -> None:
        self.lists.draw(epoch, lambda rankings, generator: label(rankings, generator, self.config))

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor:
        first = first_of_each(batch["query_ids"])
        queries, query_ids = output.query_embeddings[first], batch["query_ids"][first]
        drawn = [Labelled(*self.lists.of(teacher, query_ids)) for teacher in knowledge]
        losses = [soft_bce(student.score(queries, said.items.long()), said.labels, said.items == 0) for said in drawn]
        return spread(torch.stack(losses).mean(dim=0), first, batch)


def label(rankings: Rankings, generator: Generator, config: CDConfig) -> Labelled:
    """Items drawn from the top of the guide's ranking, with what the teacher says about each."""
    empty = rankings.teacher == 0
    guide = rankings.student if config.guide == "student" else rankings.teacher[:, : config.list_length]
    items = by_position(guide, config.sampled, config.sampling_temperature, generator)
    scores = rankings.scores.float()
    lowest = scores.masked_fill(empty, torch.inf).amin(dim=1, keepdim=True)  # (n, 1)
    known = torch.cat([scores, lowest], dim=1).gather(1, ranks_in(rankings.teacher, items))
    labels = ((known + config.bias) / config.temperature).sigmoid()
    return Labelled(items.masked_fill(empty.all(dim=1, keepdim=True), 0), labels)

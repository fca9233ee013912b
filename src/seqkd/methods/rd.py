"""RD: ranking distillation (Tang and Wang, KDD'18, arXiv 1809.07428).

The K items that a teacher ranks best are further positives of the student: the more, the better the teacher ranks them
and, once the student has warmed up, the worse the student does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..functional.distinct import first_of_each, spread
from ..knowledge import Knowledge
from ..method import Epoch, Method
from ..recommenders.recommender import RecommenderModel, RecommenderOutput
from ..teaching.ranking_lists import Lists, RankingLists, RankingListsConfig


@dataclass(frozen=True)
class RDConfig:
    """Symbols as in the paper; the specification gives no values, and these are where a search may begin.

    The paper's alpha weighs a loss of each query, as here: the weight is alpha, or alpha / (1 - alpha) where the paper
    takes (1 - alpha) off the label's.
    """

    top: int = 10  # K
    position_temperature: float = 10.0  # lambda, of the weights exp(-r / lambda) of positions
    discrepancy: float = 0.1  # mu, of the weights tanh(mu (rank_S - r)) of discrepancies
    samples: int = 100  # epsilon, items by which the student's rank of an item is estimated
    warmup_epochs: int = 10  # before which positions alone weigh
    refresh: int = 1  # epochs for which the samples are kept

    def __post_init__(self) -> None:
        if not self.position_temperature > 0 or not self.discrepancy > 0:
            raise ConfigError("position_temperature and discrepancy must be above 0.")
        if self.top < 1 or self.samples < 1 or self.warmup_epochs < 0 or self.refresh < 1:
            raise ConfigError(
                f"top={self.top}, samples={self.samples} and refresh={self.refresh} must be at least 1, "
                f"warmup_epochs={self.warmup_epochs} at least 0."
            )

    def lists(self) -> RankingListsConfig:
        """The K best, and samples of all else that the user has not."""
        return RankingListsConfig(self.top, self.samples, list_length=self.top, refresh=self.refresh)


class RD(Method):
    """`-sum_r w_r log sigma(S_r)` over the K best of the teacher, `w` summing to 1; one loss per query.

    Nothing here pushes a score down: it needs the loss of labels with negatives beside it. Knowledge: `query_topk`,
    exported with `filter_seen=True`. Memory: N (K + samples) int32 for each teacher.
    """

    config_class = RDConfig
    config: RDConfig
    paper = "arXiv:1809.07428"
    lists: RankingLists

    def __init__(self, config: RDConfig | None = None) -> None:
        super().__init__(config)
        self.warm = False

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"query_topk"})

    @property
    def reads(self) -> frozenset[str]:
        return frozenset()  # lists are drawn when an epoch begins

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        self.lists = RankingLists(self.config.lists(), knowledge, "query_topk", student.config.num_items)

    def on_epoch_begin(self, epoch: Epoch) -> None:
        self.warm = epoch.number >= self.config.warmup_epochs
        self.lists.draw(epoch, epoch.positives.of_queries)

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor:
        first = first_of_each(batch["query_ids"])
        queries, query_ids = output.query_embeddings[first], batch["query_ids"][first]
        losses = []
        for teacher in knowledge:
            lists = self.lists.of(teacher, query_ids)
            top, sampled = student.score(queries, lists.both).split([part.shape[1] for part in lists], dim=1)
            weights = position_weights(top, self.config.position_temperature)
            if self.warm:
                ranks = estimated_ranks(top.detach(), sampled.detach(), lists, student.config.num_items)
                weights = weights * discrepancy_weights(ranks, self.config.discrepancy)
            losses.append(weighted_positives(top, weights.masked_fill(lists.interesting == 0, 0.0)))
        return spread(torch.stack(losses).mean(dim=0), first, batch)


def position_weights(top: Tensor, temperature: float) -> Tensor:
    """`exp(-r / lambda)` of the places of `top (n, K)`, `(K,)`, r from 1; up to a factor, which is 1 for the first."""
    return torch.exp(-torch.arange(top.shape[1], device=top.device) / temperature)


def estimated_ranks(top: Tensor, sampled: Tensor, lists: Lists, num_items: int) -> Tensor:
    """Where the student ranks each of `top (n, K)`, `(n, K)` from 1, by how many of `sampled (n, samples)` beat it.

    They stand for the items that neither the user has nor the K are.
    """
    drawn = lists.uninteresting != 0
    higher = ((sampled[:, None] > top[:, :, None]) & drawn[:, None]).sum(dim=2)
    return higher * (num_items - 1) // drawn.sum(dim=1, keepdim=True).clamp(min=1) + 1


def discrepancy_weights(ranks: Tensor, mu: float) -> Tensor:
    """`tanh(max(mu (rank_S - r), 0))`, `(n, K)`: nothing for what the student ranks as high as the teacher."""
    return (mu * (ranks - torch.arange(1, ranks.shape[1] + 1, device=ranks.device)).clamp(min=0)).tanh()


def weighted_positives(top: Tensor, weights: Tensor) -> Tensor:
    """`-sum_r w_r log sigma(S_r)`, `(n,)`, with weights `(n, K)` made to sum to 1; 0 where all are 0."""
    top = top.to(torch.promote_types(top.dtype, torch.float32))
    total = weights.sum(dim=1, keepdim=True)
    weights = weights / total.masked_fill(total == 0, 1.0)
    return (weights * F.softplus(-top)).sum(dim=1)

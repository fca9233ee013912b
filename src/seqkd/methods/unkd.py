"""UnKD: unbiased knowledge distillation for recommendation (Chen et al., WSDM'23, arXiv 2211.14729).

A teacher ranks popular items too high, and a student that imitates the ranking higher still. Within a group of items
of like popularity the ranking is free of that, so pairs of one group are taught, never of two.
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
from ..method import Method
from ..recommenders.recommender import RecommenderModel, RecommenderOutput
from ..teaching.list_checks import require_unseen


@dataclass(frozen=True)
class UnKDConfig:
    """Symbols as in the paper; the specification gives a range of groups only, the rest is where a search may begin.

    The paper's lambda multiplies a sum over the pairs of a user, here it is their mean: the weight is lambda times
    `groups` times `pairs`.
    """

    groups: int = 2  # of equal total popularity; 2 to 5
    pairs: int = 30  # |S_ug|, drawn in each step of every group
    sampling_temperature: float = 10.0  # mu, of exp(-rank / mu), the rank within the group

    def __post_init__(self) -> None:
        if self.groups < 1 or self.pairs < 1 or not self.sampling_temperature > 0:
            raise ConfigError(
                f"groups={self.groups} and pairs={self.pairs} must be at least 1, sampling_temperature="
                f"{self.sampling_temperature} above 0."
            )


class UnKD(Method):
    """`-mean log sigma(S_i+ - S_i-)` of pairs that the teacher orders, one loss per query.

    Knowledge: `query_topk`, exported with `filter_seen=True`, and long: items of the last group are rare at the top,
    and only what is listed is ranked. A group of which fewer than two are listed has no pair. The student's
    `item_counts` say what is popular. Memory: Q (M + 2 groups pairs D).
    """

    config_class = UnKDConfig
    config: UnKDConfig
    paper = "arXiv:2211.14729"
    group_of: Tensor  # (I+1,) from 0, the most popular; an empty place has one of its own, the last

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"query_topk"})

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        require_unseen(knowledge)
        if not student.item_counts.any():
            raise ConfigError(
                "UnKD groups items by popularity, but the student does not know how often each was bought. Call "
                "student.set_catalogue(split.catalogue, count_items(split.train, num_items))."
            )
        self.register_buffer("group_of", popularity_groups(student.item_counts, self.config.groups), persistent=False)

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor:
        first, config = first_of_each(batch["query_ids"]), self.config
        queries, losses = output.query_embeddings[first], []
        for tables in knowledge.values():
            ranking = tables["query_topk"][first].long()
            better, worse = draw_pairs(ranking, self.group_of, config.groups, config.pairs, config.sampling_temperature)
            higher, lower = student.score(queries, torch.cat([better, worse], dim=1)).chunk(2, dim=1)
            losses.append(pairwise(higher, lower, better == 0))
        return spread(torch.stack(losses).mean(dim=0), first, batch)


def popularity_groups(item_counts: Tensor, groups: int) -> Tensor:
    """The group of each item, `(I+1,)`: 0 the most popular, all of about equal total popularity; padding is in none.

    Args:
        item_counts: `(I+1,)`, row 0 padding.
    """
    counts, items = item_counts[1:].double().sort(descending=True, stable=True)
    middle = (counts.cumsum(0) - counts / 2) / counts.sum()  # of each item's share, as they lie side by side
    group_of = torch.full((len(item_counts),), groups, device=item_counts.device)
    group_of[items + 1] = (middle * groups).long().clamp(max=groups - 1)
    return group_of


def draw_pairs(ranking: Tensor, group_of: Tensor, groups: int, pairs: int, temperature: float) -> tuple[Tensor, Tensor]:
    """The better and the worse items of pairs of one group, `(n, groups * pairs)` each; 0 where none was found.

    Both are drawn by `exp(-rank / mu)`; a pair of an item with itself is none.

    Args:
        ranking: `(n, M)`, best first, 0 for empty places.
        group_of: `(I+1,)`, `groups` for the padding.
    """
    grouped, order = group_of[ranking].sort(dim=1, stable=True)  # group after group, each in the teacher's order
    bounds = torch.arange(groups + 1, device=ranking.device).expand(len(ranking), -1).contiguous()
    start = torch.searchsorted(grouped, bounds)  # (n, groups + 1)
    size, start = start.diff(dim=1)[:, :, None, None], start[:, :-1, None, None]  # (n, groups, 1, 1)
    ranks = geometric(size.expand(-1, -1, pairs, 2), temperature).sort(dim=3).values  # (n, groups, pairs, 2)
    drawn = (start + ranks).clamp(max=ranking.shape[1] - 1).flatten(1)
    items = ranking.gather(1, order).gather(1, drawn).view(ranks.shape)
    found = ranks[..., :1] < ranks[..., 1:]
    better, worse = items.masked_fill(~found, 0).flatten(1, 2).unbind(dim=2)
    return better, worse


def geometric(size: Tensor, temperature: float) -> Tensor:
    """Ranks `0..size - 1` drawn by `exp(-rank / mu)`, of the shape of `size`, by the inverse of the distribution.

    0 where `size` is 0.
    """
    below = -torch.expm1(-size / temperature)  # share of the unbounded law that lies below `size`
    ranks = -temperature * torch.log1p(-torch.rand(size.shape, device=size.device) * below)
    return ranks.long().minimum((size - 1).clamp(min=0))


def pairwise(better: Tensor, worse: Tensor, empty: Tensor) -> Tensor:
    """Mean of `-log sigma(S_i+ - S_i-)` over the pairs `(n, P)` that are not empty, `(n,)`, at least float32."""
    dtype = torch.promote_types(better.dtype, torch.float32)
    losses = F.softplus(worse.to(dtype) - better.to(dtype)).masked_fill(empty, 0.0)
    return losses.sum(dim=1) / (~empty).sum(dim=1).clamp(min=1)

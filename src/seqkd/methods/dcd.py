"""DCD: dual correction strategy for ranking distillation (Lee and Kim, CIKM'21).

Not what a teacher ranks best is taught, but where the student errs about it: items that it under-estimates are to rise,
in the teacher's order, above those that it over-estimates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from ..errors import ConfigError
from ..functional.distinct import first_of_each, spread
from ..functional.list_ranks import ranks_in
from ..knowledge import Knowledge
from ..method import Epoch, Method
from ..recommenders.recommender import RecommenderModel, RecommenderOutput
from ..teaching.guided_lists import GuidedLists, Rankings
from ..teaching.list_checks import require_length
from ..teaching.ranking_lists import Lists, relaxed_ranking_of


@dataclass(frozen=True)
class DCDConfig:
    """Values of the public port (RCE-KD's), symbols as in the paper.

    Its lambda multiplies a sum over the distinct users of a batch of 1,024 pairs, beside a sum over its pairs. Here
    both are means: the weight is the paper's times distinct users / pairs.
    """

    under: int = 100  # K, items that the student under-estimates
    over: int = 100  # K, items that it over-estimates
    temperature: float = 10.0  # T, of the discrepancy of ranks
    list_length: int = 500  # places of the teacher's list from which both are drawn
    floor: float = 1e-5  # least weight, by which a list is filled up with other items; 0 leaves it short
    refresh: int = 1  # epochs for which the student's ranking is kept; lists are drawn in each

    def __post_init__(self) -> None:
        if not 1 <= self.under <= self.list_length or not 1 <= self.over <= self.list_length:
            raise ConfigError(f"under={self.under} and over={self.over} must lie in 1..list_length={self.list_length}.")
        if self.floor and max(self.under, self.over) == self.list_length:
            raise ConfigError(
                f"under={self.under} and over={self.over} of list_length={self.list_length}: with floor={self.floor} "
                "the whole list would be drawn whatever the student does. Draw fewer, or set floor=0."
            )
        if not self.temperature > 0 or self.floor < 0 or self.refresh < 1:
            raise ConfigError(
                f"temperature={self.temperature} must be above 0, floor={self.floor} not below, and "
                f"refresh={self.refresh} at least 1."
            )

    @property
    def student_length(self) -> int:
        """Places of the student's ranking to know: an item beyond them is under-estimated by 5 T, and tanh(5) is 1."""
        return self.list_length + int(5 * self.temperature)


class DCD(Method):
    """Relaxed ranking of `[under-estimated, over-estimated]` items, one loss per query.

    The user side, as in all ports. The paper adds the same for items, ranking users; that would rank all users for
    every item with the student in each epoch, and is left out.

    Knowledge: `query_topk`, exported with `filter_seen=True` and k=list_length. One ranking of the student's by epoch;
    N (list_length + 5T) int32, saved with the run, and N 2K for each teacher.
    """

    config_class = DCDConfig
    config: DCDConfig
    paper = "doi:10.1145/3459637.3482093"
    lists: GuidedLists

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"query_topk"})

    @property
    def reads(self) -> frozenset[str]:
        return frozenset()  # lists are drawn when an epoch begins

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        config = self.config
        require_length(knowledge, config.list_length, student.config.num_items)
        self.lists = GuidedLists(knowledge, student.config.num_items, config.student_length, config.refresh)

    def on_epoch_begin(self, epoch: Epoch) -> None:
        self.lists.draw(epoch, lambda rankings, generator: dual_correction(rankings, generator, self.config))

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor:
        first = first_of_each(batch["query_ids"])
        queries, query_ids = output.query_embeddings[first], batch["query_ids"][first]
        drawn = [Lists(*(part.long() for part in self.lists.of(teacher, query_ids))) for teacher in knowledge]
        losses = [relaxed_ranking_of(student.score(queries, lists.both), lists) for lists in drawn]
        return spread(torch.stack(losses).mean(dim=0), first, batch)


def dual_correction(rankings: Rankings, generator: Generator, config: DCDConfig) -> Lists:
    """Under-estimated `(n, K)` and over-estimated items `(n, K)` of the teacher's list, each in its order."""
    teacher = rankings.teacher[:, : config.list_length]
    weights = correction_weights(ranks_in(rankings.student, teacher), config.temperature, config.floor)
    sizes = config.under, config.over
    return Lists(*(draw(teacher, weight, size, generator) for weight, size in zip(weights, sizes, strict=True)))


def correction_weights(student_ranks: Tensor, temperature: float, floor: float) -> tuple[Tensor, Tensor]:
    """How under- and over-estimated each item of a teacher's list is: two `(n, M)`, by its `student_ranks (n, M)`.

    `tanh(max((rank_S - rank_T) / T, 0))` and the mirror image, not below the floor; ranks count from 0.
    """
    error = (student_ranks - torch.arange(student_ranks.shape[1])).double() / temperature
    return error.clamp(min=0).tanh().clamp(min=floor), (-error).clamp(min=0).tanh().clamp(min=floor)


def draw(lists: Tensor, weights: Tensor, size: int, generator: Generator) -> Tensor:
    """K of every list `(n, M)` without replacement by `weights (n, M)`, in its order: the first clocks to ring.

    An item of weight 0 is never drawn; where too few are left, places are 0.
    """
    rings = torch.empty_like(weights).exponential_(generator=generator) / weights
    rings.masked_fill_(lists == 0, torch.inf)
    places = rings.topk(min(size, lists.shape[1]), dim=1, largest=False).indices.sort(dim=1).values
    return lists.gather(1, places).masked_fill(rings.gather(1, places).isinf(), 0)

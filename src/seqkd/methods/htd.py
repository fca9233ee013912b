"""HTD: relations within groups one by one, across groups by their prototypes (KDD'21, arXiv 2106.08700).

All terms are the paper's sums divided by the queries of the batch, as the paper's summed base loss becomes the
distiller's mean. So the paper's lambda (1e-3) is the weight of this method as it stands, and gamma means what it did.
The entity term sums over pairs and so still grows with the batch: with another batch size than the paper's 1,024, or
with gradient accumulation (pairs are formed within a micro-batch), it weighs more or less beside the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..knowledge import Knowledge
from ..method import Epoch, Method
from ..modules.experts import Experts, annealed
from ..recommenders.recommender import RecommenderModel, RecommenderOutput
from ..teaching.batch_entities import Taught, distinct_items, distinct_queries
from ..teaching.cosine_topology import cosines, group_means, require_one_space
from ..teaching.per_teacher import per_teacher

GROUP_TERMS = ("pe", "pp", "pp_constant")


@dataclass(frozen=True)
class HTDConfig:
    """Defaults of the authors' code."""

    num_groups: int = 30  # K, of users and of items each
    gamma: float = 0.5  # topology against the assignment's regression, which gets 1 - gamma
    # pe: prototypes against entities. pp: against prototypes, with the gradient through the student's that the paper's
    # equation has. pp_constant: as the authors compute pp, without: it is logged but teaches nothing.
    group_term: str = "pe"
    anneal_epochs: int = 100  # of the selector's temperature, from 1 to 1e-10
    # Queries and items in the entity term and the regression, at most so many of each; None takes all. Both stay
    # unbiased; prototypes and the group term always see all.
    max_entities: int | None = None

    def __post_init__(self) -> None:
        if self.group_term not in GROUP_TERMS:
            raise ConfigError(f"group_term must be one of {GROUP_TERMS}, got {self.group_term!r}.")
        if not 0 <= self.gamma <= 1:
            raise ConfigError(f"gamma must lie in [0, 1], got {self.gamma}.")
        for name, least in (("num_groups", 1), ("anneal_epochs", 1), ("max_entities", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}.")


class HTD(Method):
    """`(1/Q) (gamma (entity + group) + (1 - gamma) GA)`; the mean over teachers.

    Memory: the entity term holds about five matrices of distinct queries^2 and of distinct items^2 floats, one kind
    after the other; the regression holds what `DE` holds. Measured on CiteULike: 71 MB, in the first epoch 148.
    """

    config_class = HTDConfig
    config: HTDConfig
    paper = "arXiv:2106.08700"
    query_experts: nn.ModuleDict
    item_experts: nn.ModuleDict

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"query_embeddings", "item_embeddings"})

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        require_one_space(knowledge)
        build = partial(Experts, student.embedding_size, num_experts=self.config.num_groups)
        self.query_experts = per_teacher(knowledge, "query_embeddings", build)
        self.item_experts = per_teacher(knowledge, "item_embeddings", build)

    def on_epoch_begin(self, epoch: Epoch) -> None:
        for experts in chain(self.query_experts.values(), self.item_experts.values()):
            cast(Experts, experts).temperature = annealed(epoch.number, self.config.anneal_epochs)

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor:
        queries, items = distinct_queries(batch, output), distinct_items(student, batch)
        loss = output.query_embeddings.new_zeros(())
        for teacher, tables in knowledge.items():
            banks = cast(Experts, self.query_experts[teacher]), cast(Experts, self.item_experts[teacher])
            sides = queries.taught(tables["query_embeddings"]), items.taught(tables["item_embeddings"])
            loss = loss + self._loss(sides, banks)
        return loss / (len(knowledge) * len(batch["query_ids"]))

    def _loss(self, sides: tuple[Taught, Taught], banks: tuple[Experts, Experts]) -> Tensor:
        gamma, most = self.config.gamma, self.config.max_entities
        stacked = torch.cat([side.student for side in sides]), torch.cat([side.teacher for side in sides])
        groups = torch.cat([n * self.config.num_groups + banks[n].group(sides[n].teacher) for n in range(2)])
        loss = gamma * group_term(*stacked, groups, self.config.group_term)
        for side, experts in zip(sides, banks, strict=True):
            some = side.sample(most)
            drawn, count = len(some.rows), len(side.rows)
            pairs = count * (count - 1) / max(drawn * (drawn - 1), 1)  # of two entities; one with itself has no gap
            entity = entity_term(some.student, some.teacher, experts.group(some.teacher))
            regression = (some.share * experts.errors(some.student, some.teacher)).sum()  # the loss of DE
            loss = loss + gamma * pairs * entity + (1 - gamma) * regression
        return loss


def entity_term(student: Tensor, teacher: Tensor, groups: Tensor) -> Tensor:
    """`sum (cos(s_i, s_j) - cos(t_i, t_j))^2` over ordered pairs of one group whose teacher cosine is above 0, `()`.

    Args:
        student, teacher: `(b, D)` and `(b, d)`.
        groups: `(b,)`.
    """
    wanted = cosines(teacher, teacher)  # (b, b)
    kept = (groups[:, None] == groups) & (wanted > 0)
    return (cosines(student, student) - wanted).mul(kept).square().sum()


def group_term(student: Tensor, teacher: Tensor, groups: Tensor, how: str) -> Tensor:
    """The squared gaps of cosines that involve a prototype, summed, `()`; only groups that occur have one.

    Args:
        student, teacher: `(b, D)` and `(b, d)`, queries over items.
        groups: `(b,)`; queries and items share none.
        how: `pe` (prototypes are constants and face every entity, also those of their group), `pp`, `pp_constant`.
    """
    student_means, teacher_means = group_means(student, groups), group_means(teacher, groups)  # (G, D), (G, d)
    if how != "pp":
        student_means = student_means.detach()
    faced = (student, teacher) if how == "pe" else (student_means, teacher_means)
    return (cosines(student_means, faced[0]) - cosines(teacher_means, faced[1])).square().sum()

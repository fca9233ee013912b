"""DE: distillation experts regress the teacher's vectors, a chosen expert for each entity (CIKM'20, arXiv 2012.04357).

The paper sums over the distinct users and items of a batch; here the sum is divided by the queries of the batch, as the
paper's summed base loss becomes the distiller's mean. So the paper's lambda (0.01) is the weight of this method as it
stands.
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
from ..teaching.per_teacher import per_teacher


@dataclass(frozen=True)
class DEConfig:
    """Defaults of the authors' code."""

    num_experts: int = 30  # M, of users and of items each
    anneal_epochs: int = 1000  # epochs over which the selector's temperature falls from 1 to 1e-10
    # Queries and items regressed in a step, at most so many of each; None takes all. With m of n the loss is unbiased
    # and its relative variance (n - m) / (n m) * (variance / mean^2 of the single errors). An item occurs in several
    # steps of an epoch, a user in as many as they have items: a sample still regresses most of them in every epoch.
    max_entities: int | None = None
    # Regress in one of so many steps, drawn at random, with a loss as many times larger. In the others the experts have
    # no gradient, so the optimizer leaves their M (D + d)^2 / 2 weights alone, which on a CPU cost more than BPR. The
    # cheapest measured is max_entities=256, every=4, see benchmarks/method_cost.py.
    every: int = 1

    def __post_init__(self) -> None:
        for name in ("num_experts", "anneal_epochs", "max_entities", "every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}.")


class DE(Method):
    """`(1/Q) (sum_u e_u + sum_i e_i)` with `e = ||t - sum_m z_m E_m(s)||^2`; the mean over teachers.

    Positive and negative items are sets of their own and weigh half each; without negatives, positives weigh 1. On the
    GPU and while the temperature is high all M experts answer for every entity: memory is three times entities * M *
    (D + d) / 2 floats, 130 MB for 2,900 entities at the paper's widths 20 and 200; once it is low, a tenth of that.
    """

    config_class = DEConfig
    config: DEConfig
    paper = "arXiv:2012.04357"
    query_experts: nn.ModuleDict
    item_experts: nn.ModuleDict

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"query_embeddings", "item_embeddings"})

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        build = partial(Experts, student.embedding_size, num_experts=self.config.num_experts)
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
        most, every = self.config.max_entities, self.config.every
        loss = output.query_embeddings.new_zeros(())
        if every > 1 and torch.rand(()) * every > 1:
            return loss
        queries = distinct_queries(batch, output, most=most)
        items = distinct_items(student, batch, sides=True, most=most)
        for teacher, tables in knowledge.items():
            for entities, table, experts in (
                (queries, tables["query_embeddings"], self.query_experts[teacher]),
                (items, tables["item_embeddings"], self.item_experts[teacher]),
            ):
                loss = loss + regression(entities.taught(table), cast(Experts, experts))
        return every * loss / (len(knowledge) * len(batch["query_ids"]))


def regression(entities: Taught, experts: Experts, noise: Tensor | None = None) -> Tensor:
    """`sum_e share_e ||t_e - sum_m z_em E_m(s_e)||^2`, `()`; `noise (n, M)` is Gumbel, drawn where it is not given."""
    return (entities.share * experts.errors(entities.student, entities.teacher, noise)).sum()

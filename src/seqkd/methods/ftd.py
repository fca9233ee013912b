"""FTD: full topology distillation, all cosine similarities among the entities of a batch (KDD'21, arXiv 2106.08700)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..knowledge import Knowledge
from ..method import Method
from ..recommenders.recommender import RecommenderModel, RecommenderOutput
from ..teaching.batch_entities import distinct_items, distinct_queries
from ..teaching.cosine_topology import require_one_space, unit


@dataclass(frozen=True)
class FTDConfig:
    """Nothing to choose.

    The paper sums over all b^2 ordered pairs of a batch and has lambda = 1e-3 beside a sum over its Q queries. Here
    both are means, so the weight that does the same is lambda b^2 / Q: about 8 for 1,024 pairs of user and item with
    b = 2,900 distinct users and items. It no longer depends on the batch size.
    """


class FTD(Method):
    """`1/b^2 sum_ij (cos(t_i, t_j) - cos(s_i, s_j))^2` over distinct queries and items; the mean over teachers.

    The pairs are never formed, see `topology_gap`: time and memory grow with b, not b^2, so no sample is needed.
    """

    config_class = FTDConfig
    config: FTDConfig
    paper = "arXiv:2106.08700"

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"query_embeddings", "item_embeddings"})

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        require_one_space(knowledge)

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor:
        queries, items = distinct_queries(batch, output), distinct_items(student, batch)
        loss = output.query_embeddings.new_zeros(())
        for tables in knowledge.values():
            both = queries.taught(tables["query_embeddings"]), items.taught(tables["item_embeddings"])
            student_vectors = torch.cat([side.student for side in both])  # (b, D)
            teacher_vectors = torch.cat([side.teacher for side in both])  # (b, d)
            loss = loss + topology_gap(student_vectors, teacher_vectors) / max(len(student_vectors), 1) ** 2
        return loss / len(knowledge)


def topology_gap(student: Tensor, teacher: Tensor) -> Tensor:
    """`sum_ij (cos(t_i, t_j) - cos(s_i, s_j))^2` over ordered pairs of rows `(b, D)` and `(b, d)`, `()`.

    With S and T at unit length this is `|SS' - TT'|^2 = |S'S|^2 - 2 |T'S|^2 + |T'T|^2`: products of widths, not of b.
    """
    s, t = unit(student), unit(teacher)
    return (s.T @ s).square().sum() - 2 * (t.T @ s).square().sum() + (t.T @ t).square().sum()

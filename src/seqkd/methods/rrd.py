"""RRD: relaxed ranking distillation (DE-RRD, CIKM'20, arXiv 2012.04357, section 4.2).

The student is taught in what order a teacher ranks its best items, and that the rest stands below them in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..functional.distinct import first_of_each, spread
from ..knowledge import Knowledge
from ..method import Epoch, Method
from ..recommenders.recommender import RecommenderModel, RecommenderOutput
from ..teaching.ranking_lists import RankingLists, RankingListsConfig, relaxed_ranking_of


@dataclass(frozen=True)
class RRDConfig(RankingListsConfig):
    """The paper's lists, but the exact top; `sampling="position"` is CIKM'20.

    The weight lambda of the paper (1e-3 with BPR) multiplies a sum over the distinct users of a batch of 1,024 pairs,
    beside a sum over its pairs. Here both are means: the weight is the paper's times distinct users / pairs, about 0.85
    of it on CiteULike.
    """


class RRD(Method):
    """Relaxed ranking of `[interesting, uninteresting]` items, one loss per query.

    A query that is asked several times in a batch is taught once, as in the paper, and weighs as much as any other
    (see `spread`); where its pairs read different histories (FM and DeepFM on sets), the first of them stands for it,
    in each micro-batch anew.

    Knowledge: `query_topk`, exported with `filter_seen=True`. Memory: N (K+L) int32 for each teacher, and a few times
    Q (K+L) floats; where the student's items are no table (SASRec), also Q (K+L) D for the vectors of the candidates.
    """

    config_class = RRDConfig
    config: RRDConfig
    paper = "arXiv:2012.04357"
    lists: RankingLists

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"query_topk"})

    @property
    def reads(self) -> frozenset[str]:
        return frozenset()  # lists are drawn when an epoch begins

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        self.lists = RankingLists(self.config, knowledge, "query_topk", student.config.num_items)

    def on_epoch_begin(self, epoch: Epoch) -> None:
        self.lists.draw(epoch, epoch.positives.of_queries)

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor:
        first = first_of_each(batch["query_ids"], self.config.max_queries)
        queries, query_ids = output.query_embeddings[first], batch["query_ids"][first]
        drawn = [self.lists.of(teacher, query_ids) for teacher in knowledge]
        losses = [relaxed_ranking_of(student.score(queries, lists.both), lists) for lists in drawn]
        return spread(torch.stack(losses).mean(dim=0), first, batch)

"""IR-RRD: relaxed ranking distillation with item-side regularisation (Information Sciences 580, 2021).

RRD with its mirror image: for the items of the users' lists, in what order a teacher ranks the users. It keeps a small
student from fitting the users' lists alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ..batches.positives import Positives
from ..errors import ConfigError
from ..functional.candidate_scores import candidate_scores
from ..functional.distinct import first_of_each, spread
from ..knowledge import Knowledge
from ..method import Epoch, Method
from ..recommenders.recommender import RecommenderModel, RecommenderOutput
from ..recommenders.user_recommender import UserRecommender
from ..teaching.ranking_lists import Lists, RankingLists, RankingListsConfig, relaxed_ranking_of


@dataclass(frozen=True)
class IRRRDConfig(RankingListsConfig):
    """The paper's lists, but the exact top; `sampling="position"` is the paper.

    Both terms of the paper are sums, over distinct users and over distinct items of a batch of 1,024 pairs, with
    lambda_U = 1e-3 and lambda_I = 5e-4. Here both are divided by the number of distinct users, so `item_weight` is
    lambda_I / lambda_U, and the method's own weight is lambda_U times distinct users / pairs. Items come from the lists
    of the batch: in smaller batches there are more of them for each user (20 with 1,024 pairs of CiteULike).
    """

    item_interesting: int = 20  # K_I
    item_uninteresting: int = 20  # L_I
    item_temperature: float = 10.0  # T_I
    item_weight: float = 0.5  # lambda_I / lambda_U
    max_items: int | None = None  # items sampled of a step's; None takes all, most of a small catalogue in every step

    def __post_init__(self) -> None:
        super().__post_init__()
        self.of_items().__post_init__()
        if self.max_items is not None and self.max_items < 1:
            raise ConfigError(f"max_items must be at least 1, or null for all, got {self.max_items}.")

    def of_items(self) -> RankingListsConfig:
        """How the lists of users are drawn."""
        return RankingListsConfig(
            self.item_interesting, self.item_uninteresting, self.sampling, self.item_temperature,
            self.list_length, self.refresh, observed_first=self.observed_first,
        )  # fmt: skip


class IRRRD(Method):
    """RRD of each query plus, the same for all queries, the item side's loss per distinct query of the batch.

    Knowledge: `query_topk`, exported with `filter_seen=True`, and `item_topk`. The student must have a vector for every
    user (MF, LightGCN). Memory: as RRD, (I+1)(K_I+L_I) int32 for each teacher, and a few times n (K_I+L_I) floats for n
    items. On CiteULike 20,000 items are in the lists of a batch and the item side costs many times the user side;
    `max_items=1000` estimates the same sum without bias from fewer.
    """

    config_class = IRRRDConfig
    config: IRRRDConfig
    paper = "doi:10.1016/j.ins.2021.08.060"
    lists: RankingLists
    item_lists: RankingLists

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"query_topk", "item_topk"})

    @property
    def reads(self) -> frozenset[str]:
        return frozenset()  # lists are drawn when an epoch begins

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        users, items = user_table(student).config.num_users, student.config.num_items
        self.lists = RankingLists(self.config, knowledge, "query_topk", items)
        self.item_lists = RankingLists(self.config.of_items(), knowledge, "item_topk", users)

    def on_epoch_begin(self, epoch: Epoch) -> None:
        self.lists.draw(epoch, epoch.positives.of_queries)
        self.item_lists.draw(epoch, lambda items, users: who_have(epoch.positives, items, users))

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor:
        query_ids, most = batch["query_ids"], self.config.max_queries
        asked = first_of_each(query_ids)
        rows = asked if most is None else first_of_each(query_ids, most)
        losses = []
        for teacher in knowledge:
            everyone = self.lists.of(teacher, query_ids[asked])
            lists = everyone if most is None else self.lists.of(teacher, query_ids[rows])
            user_side = relaxed_ranking_of(student.score(output.query_embeddings[rows], lists.both), lists)  # (n,)
            items, scale = self.sample(distinct_items(everyone, student.config.num_items))
            users = self.item_lists.of(teacher, items)
            item_side = relaxed_ranking_of(
                scores_of_users(cast(UserRecommender, student), items, users.both), users
            )  # (m,)
            losses.append(user_side + self.config.item_weight * scale * item_side.sum() / len(asked))
        return spread(torch.stack(losses).mean(dim=0), rows, batch)

    def sample(self, items: Tensor) -> tuple[Tensor, float]:
        """At most `max_items` of the items `(n,)`, and how many items each stands for."""
        kept = items
        if self.config.max_items is not None and len(items) > self.config.max_items:
            kept = items[torch.randperm(len(items), device=items.device)[: self.config.max_items]]
        return kept, len(items) / max(len(kept), 1)


def distinct_items(lists: Lists, num_items: int) -> Tensor:
    """Every item of the lists once, `(n,)` ascending."""
    listed = torch.zeros(num_items + 1, dtype=torch.bool, device=lists.interesting.device)
    listed[lists.both] = True
    listed[0] = False  # empty places
    return listed.nonzero().squeeze(1)


def scores_of_users(student: UserRecommender, items: Tensor, users: Tensor) -> Tensor:
    """How each item `(n,)` scores for the users of its list `(n, K+L)`, `(n, K+L)`."""
    every = torch.arange(student.config.num_users + 1, device=users.device)
    return candidate_scores(
        student.item_embeddings(items) / student.config.temperature, student.user_embeddings(every), users
    )


def who_have(positives: Positives, items: Tensor, users: Tensor) -> Tensor:
    """Which users `(n, c)` have the item `(n,)` of their row."""
    return positives.of_users(users.long(), items[:, None])


def user_table(student: RecommenderModel) -> UserRecommender:
    """The student, if it has a vector for every user.

    Raises:
        ConfigError: it has not.
    """
    if not isinstance(student, UserRecommender):
        raise ConfigError(
            f"IR-RRD ranks users for items, but {type(student).__name__} has no vector for a user: it knows him by his "
            "history. Teach MF or LightGCN, or use rrd for this student."
        )
    if not student.scores_by_dot_product:
        raise ConfigError(f"IR-RRD needs a score by dot product, which {type(student).__name__} has not; use rrd.")
    student.user_embeddings(torch.ones(1, dtype=torch.int64, device=student.device))  # refuses where it cannot
    return student

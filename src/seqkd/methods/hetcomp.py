"""HetComp: distillation from heterogeneous models (Kang et al., WWW'23, arXiv 2303.01130).

An ensemble of unlike teachers is too hard to learn at once. So each query starts from what the teachers knew early in
their own training and moves on, teacher by teacher, as it catches up; and while teachers are still on their way, it
learns only which items belong to the top, not yet in what order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..batches.positives import Positives
from ..catalogue import PADDING
from ..errors import ConfigError
from ..functional.catalogue_log_sum_exp import log_sum_exp_without, sampled_log_sum_exp_without
from ..functional.distinct import first_of_each, spread
from ..functional.relaxed_ranking import relaxed_ranking
from ..knowledge import Knowledge
from ..method import Epoch, Method
from ..recommenders.recommender import RecommenderModel, RecommenderOutput
from ..teaching.constructed_lists import ConstructedLists, ConstructedListsConfig


@dataclass(frozen=True)
class HetCompConfig(ConstructedListsConfig):
    """The paper trains without a loss on labels: `label_weight=0` in the `Distiller`.

    Its lambdas, 0.01 in the overall phase and 0.005 in the ranking phase, multiply a sum over the distinct users of a
    batch. Here the loss is their mean: the paper's weight is 0.01 times the distinct users of a batch, about 7.5 with
    1,024 pairs of CiteULike. Alone, under Adam, it matters against weight decay only. Beside labels, a sum over pairs
    in the papers and a mean here, divide it by the pairs: 0.0073.

    Of the two releases, the "submission" ranks all K in the ranking phase; the "final" one the first half, and the
    first tenth once more.
    """

    rank_weight: float = 0.5  # of the ranking phase against the overall phase: 0.005 / 0.01
    transfer: str = "adaptive"  # or always "overall", always "ranking"
    # Distinct queries taught in a step, at most so many, drawn; None takes all. They score the whole catalogue: on a
    # CPU, with 1,024 pairs a batch and 25,000 items, an epoch takes 36 times what BPR takes, with 128 queries 5.5
    # times (benchmarks/results/hetcomp/cost.json). The batches of an epoch ask a user as often as they have items, so
    # that most are still taught once or more.
    max_queries: int | None = None
    # Items, drawn anew in each step, from which the sum over all that do not belong to a list is estimated; None takes
    # the whole catalogue. With 64 queries and 2,048 items an epoch takes twice what BPR takes.
    max_items: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rank_weight > 0:
            raise ConfigError(f"rank_weight must be above 0, got {self.rank_weight}.")
        for name, most in (("max_queries", self.max_queries), ("max_items", self.max_items)):
            if most is not None and most < 1:
                raise ConfigError(f"{name} must be at least 1 or None, got {most}.")
        if self.transfer not in ("adaptive", "overall", "ranking"):
            raise ConfigError(f"transfer must be 'adaptive', 'overall' or 'ranking', got {self.transfer!r}.")


class HetComp(Method):
    """The consensus of the teachers' selected checkpoints, one loss per query; a query asked twice is taught once.

    Knowledge: for every teacher its checkpoints by number, the converged model last, called e.g. `gnn@0` to `gnn@3`
    (see `Trajectory`), each with `query_topk`, exported with `filter_seen=True`, and `query_seen_topk`. Memory: N
    (K + observed) int32. In each step the distinct queries of the batch score the whole catalogue, in pieces.
    """

    config_class = HetCompConfig
    config: HetCompConfig
    paper = "arXiv:2303.01130"
    lists: ConstructedLists

    def __init__(self, config: HetCompConfig | None = None) -> None:
        super().__init__(config)
        self.positives: Positives | None = None
        self.ranking = False  # the phase

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"query_topk", "query_seen_topk"})

    @property
    def reads(self) -> frozenset[str]:
        return frozenset()  # lists are merged when an epoch begins

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        if not student.scores_by_dot_product:
            raise ConfigError(f"hetcomp teaches students that score by a dot product, not {type(student).__name__}.")
        self.lists = ConstructedLists(self.config, knowledge)

    def on_epoch_begin(self, epoch: Epoch) -> None:
        self.positives = epoch.positives
        self.lists.begin(epoch)
        self.ranking = self.lists.arrived if self.config.transfer == "adaptive" else self.config.transfer == "ranking"

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor:
        if self.positives is None:
            raise ConfigError(
                "no lists are merged yet. Train with DistillationTrainer, or in a loop of your own call "
                "method.on_epoch_begin(Epoch(...)) when an epoch begins."
            )
        config, rows = self.config, first_of_each(batch["query_ids"], self.config.max_queries)
        query_ids, queries = batch["query_ids"][rows], output.query_embeddings[rows]
        observed, top = self.lists.observed[query_ids].long(), self.lists.top[query_ids].long()
        best = None
        if self.ranking and config.release == "final":
            top, best = top[:, : max(config.top // 2, 1)], max(config.top // 10, 1)
        belongs = torch.cat([self.positives.items_of_queries(query_ids), top], dim=1)
        rest = self.rest(queries / student.config.temperature, student.item_embeddings(), belongs)
        scores = student.score(queries, torch.cat([observed, top], dim=1)).to(rest.dtype)
        had, new = scores.split([observed.shape[1], top.shape[1]], dim=1)
        terms = (had, new, rest, observed == PADDING, top == PADDING)
        losses = config.rank_weight * full_ranking(*terms, best=best) if self.ranking else overall(*terms)
        self.statistics = {"progress": self.lists.progress(batch["query_ids"])}
        return spread(losses, rows, batch)

    def rest(self, queries: Tensor, items: Tensor, belongs: Tensor) -> Tensor:
        """Log-sum-exp of all items that do not belong to a list, `(n,)`."""
        if self.config.max_items is None:
            return log_sum_exp_without(queries, items, belongs)
        return sampled_log_sum_exp_without(queries, items, belongs, self.config.max_items)


def overall(observed: Tensor, top: Tensor, rest: Tensor, empty_observed: Tensor, empty_top: Tensor) -> Tensor:
    """Each item that belongs to the top against all that do not, in no order among them: `(n,)`.

    Args:
        observed, top: scores `(n, P)` and `(n, K)`. rest: `(n,)`, log-sum-exp of the items that do not belong to them.
        empty_observed, empty_top: true where a list has no entry.
    """
    scores, empty = torch.cat([observed, top], dim=1), torch.cat([empty_observed, empty_top], dim=1)
    return F.softplus(rest[:, None] - scores).masked_fill(empty, 0.0).sum(dim=1)


def full_ranking(
    observed: Tensor, top: Tensor, rest: Tensor, empty_observed: Tensor, empty_top: Tensor, *, best: int | None
) -> Tensor:
    """The order of the observed and that of the top, each above the rest: `(n,)`; arguments as of `overall`.

    Args:
        best: half of the weight of the top goes to this many of its first, ranked above all others (final release).
    """
    rest = rest[:, None]
    losses = relaxed_ranking(observed, rest, empty_interesting=empty_observed)
    ranked = relaxed_ranking(top, rest, empty_interesting=empty_top)
    if best is None:
        return losses + ranked
    others, empty = torch.cat([rest, top[:, best:]], dim=1), F.pad(empty_top[:, best:], (1, 0))
    first = relaxed_ranking(top[:, :best], others, empty_interesting=empty_top[:, :best], empty_uninteresting=empty)
    return losses + (ranked + first) / 2

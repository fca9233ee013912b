"""PHR: a hyper-network makes a projection of its own for each entity (Knowledge-Based Systems 239, 2022).

The sum over the distinct users and items of a batch is divided by the queries of the batch, as the summed base loss
becomes the distiller's mean. So a published lambda (0.01) is the weight of this method as it stands. There is no public
code of the authors; `shared` and `hidden_size` also give the form of a third party (hyperkdma).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from ..errors import ConfigError
from ..knowledge import Knowledge
from ..method import Epoch, Method
from ..recommenders.recommender import RecommenderModel, RecommenderOutput
from ..teaching.batch_entities import Taught, distinct_items, distinct_queries
from ..teaching.neighbourhood import Neighbourhood, neighbourhood
from ..teaching.per_teacher import per_teacher


@dataclass(frozen=True)
class PHRConfig:
    """The paper has no hyper-parameter of its own; these are the readings of it."""

    enrichment: bool = True  # the projection also depends on the neighbours; needs the epochs of a trainer
    bias: bool = False  # the projection has a bias, too
    shared: bool = False  # one hyper-network for queries and items
    hidden_size: int | None = None  # of the hyper-network; None is (d + d D) // 2
    # Queries and items regressed in a step, at most so many of each, unbiased (see `DEConfig`); None takes all.
    max_entities: int | None = None

    def __post_init__(self) -> None:
        for name in ("hidden_size", "max_entities"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}.")


class HyperNetwork(nn.Module):
    """`Theta(v) s`, with `Theta = reshape(W2 relu(W1 v + b1) + b2)` of shape (d, D).

    Every weight of W2 meets every entity in whatever order the product is taken, 2 hidden d D operations: contracting
    s first (hidden D or hidden d floats for each entity) saves nothing over Theta itself, d D floats. It has about
    (d D)^2 / 2 weights, 8.8 million for 200 -> 20; leave them out of weight decay that is meant for embeddings.

    Args:
        student_size, teacher_size: D, d.
    """

    def __init__(
        self, student_size: int, teacher_size: int, hidden_size: int | None = None, bias: bool = False
    ) -> None:
        super().__init__()
        self.teacher_size = teacher_size
        hidden_size = hidden_size or (teacher_size + teacher_size * student_size) // 2
        self.hidden = nn.Linear(teacher_size, hidden_size)
        self.output = nn.Linear(hidden_size, teacher_size * (student_size + bias))

    def forward(self, student: Tensor, about: Tensor) -> Tensor:
        """`(n, d)` from the student's `(n, D)` and the vectors `about (n, d)` that shape the projections."""
        theta = self.output(self.hidden(about).relu()).unflatten(1, (self.teacher_size, -1))  # (n, d, D [+ 1])
        width = student.shape[1]
        projected = (theta[:, :, :width] @ student[:, :, None]).squeeze(2)
        return projected + theta[:, :, width:].sum(dim=2)  # of no columns where there is no bias


class PHR(Method):
    """`(1/Q) (sum_u e_u + sum_i e_i)` with `e = ||t - Theta(v) s||^2`; the mean over teachers.

    v is t, or with enrichment `.5 (t + mean of the neighbours' t)`. Positive and negative items weigh half each, as in
    DE. Memory: entities * d * D floats (46 MB for 2,900 at 200 and 20), about three times in training: 131 MB measured
    on CiteULike; and what stays, networks with their moments and, with enrichment, (U + I) * d: 237 MB.
    """

    config_class = PHRConfig
    config: PHRConfig
    paper = "doi:10.1016/j.knosys.2021.107958"
    query_networks: nn.ModuleDict
    item_networks: nn.ModuleDict

    @property
    def requires(self) -> frozenset[str]:
        return frozenset({"query_embeddings", "item_embeddings"})

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        self._knowledge, self._neighbourhoods = knowledge, dict[str, Neighbourhood]()

        def build(width: int) -> HyperNetwork:
            return HyperNetwork(student.embedding_size, width, self.config.hidden_size, self.config.bias)

        self.query_networks = per_teacher(knowledge, "query_embeddings", build)
        if not self.config.shared:
            self.item_networks = per_teacher(knowledge, "item_embeddings", build)

    def on_epoch_begin(self, epoch: Epoch) -> None:
        if self.config.enrichment and not self._neighbourhoods:
            device = next(self.parameters()).device
            for teacher, said in self._knowledge.items():
                found = neighbourhood(epoch.positives, said)
                self._neighbourhoods[teacher] = Neighbourhood(*(part.to(device) for part in found))

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor:
        most = self.config.max_entities
        queries = distinct_queries(batch, output, most=most)
        items = distinct_items(student, batch, sides=True, most=most)
        item_networks = self.query_networks if self.config.shared else self.item_networks
        loss = output.query_embeddings.new_zeros(())
        for teacher, tables in knowledge.items():
            about_queries, about_items = self._about(teacher, batch["query_ids"], tables)
            for entities, table, about, networks in (
                (queries, tables["query_embeddings"], about_queries, self.query_networks),
                (items, tables["item_embeddings"], about_items, item_networks),
            ):
                some = entities.taught(table)
                loss = loss + regression(some, about[some.rows], cast(HyperNetwork, networks[teacher]))
        return loss / (len(knowledge) * len(batch["query_ids"]))

    def _about(self, teacher: str, query_ids: Tensor, tables: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """v of the batch's queries `(Q, d)` and of all items `(I+1, d)`."""
        queries, items = tables["query_embeddings"], tables["item_embeddings"]
        if not self.config.enrichment:
            return queries, items
        if teacher not in self._neighbourhoods:
            raise ConfigError("enrichment reads who has what from a trainer's epoch; call on_epoch_begin first.")
        near = self._neighbourhoods[teacher]
        return near.enrich_queries(query_ids, queries), near.enriched_items


def regression(entities: Taught, about: Tensor, network: HyperNetwork) -> Tensor:
    """`sum_e share_e ||t_e - Theta(v_e) s_e||^2`, `()`; `about (n, d)` is v."""
    gap = entities.teacher - network(entities.student, about.to(entities.teacher.dtype))
    return (entities.share * gap.square().sum(dim=1)).sum()

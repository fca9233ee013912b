"""Cross-entropy of the student's softmax over all items against a teacher's (arXiv 1503.02531, on a catalogue).

The simplest ranking distillation, and within about .001 NDCG@20 of RCE-KD in that paper's ablation (arXiv 2509.20989).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigError
from ..functional.catalogue_cross_entropy import catalogue_cross_entropy
from ..functional.distinct import first_of_each, share_of_each, spread
from ..knowledge import Knowledge
from ..method import Method, SoftLabels
from ..recommenders.recommender import RecommenderModel, RecommenderOutput


@dataclass(frozen=True)
class FullCEConfig:
    """The weight of the method multiplies a mean over queries; papers that sum over the users of a batch divide it."""

    candidates: str = "top"  # the teacher's list, its softmax renormalised on it; or the whole "catalogue", exactly
    temperature: float = 1.0  # tau, of teacher and student; 1 suits dot products that were trained with BPR
    # Queries taught in a step, at most so many, drawn from the distinct ones of the batch; None teaches all. Unbiased.
    # Where users are asked once for each of their items, as on sets, a part of a batch is taught often enough.
    max_queries: int | None = None

    def __post_init__(self) -> None:
        if self.candidates not in ("top", "catalogue"):
            raise ConfigError(f"candidates must be 'top' or 'catalogue', got {self.candidates!r}.")
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be above 0, got {self.temperature}.")
        if self.max_queries is not None and self.max_queries < 1:
            raise ConfigError(f"max_queries must be at least 1, got {self.max_queries}.")


class FullCE(Method):
    """`-sum_i softmax(T/tau)_i log softmax(S/tau)_i`, i over all items.

    `top` reads `query_topk` (its longest lists cover most of the mass) and costs one pass over the catalogue, shared
    with a softmax loss where tau is 1. `catalogue` reads `query_embeddings` and `item_embeddings` and makes the
    teacher's logits, Q x I x d, in every step and again for its gradient; memory is a few million logits.
    """

    config_class = FullCEConfig
    config: FullCEConfig
    paper = "arXiv:1503.02531"

    @property
    def requires(self) -> frozenset[str]:
        if self.config.candidates == "top":
            return frozenset({"query_topk", "query_scores"})
        return frozenset({"query_embeddings", "item_embeddings"})

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        plain = self.config.candidates == "top" and self.config.temperature == 1
        if not plain and not student.scores_by_dot_product:
            raise ConfigError(
                f"{type(student).__name__} does not score by a dot product: full_ce teaches it with candidates='top' "
                f"and temperature=1, not {self.config.candidates!r} and {self.config.temperature}."
            )

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor | SoftLabels:
        tau, most, tables = self.config.temperature, self.config.max_queries, list(knowledge.values())
        if self.config.candidates == "top" and tau == 1 and most is None:
            items, probs = top_probs(tables, tau)
            return SoftLabels(items, probs * share_of_each(batch)[:, None])
        drawn = first_of_each(batch["query_ids"], most)
        queries = output.query_embeddings[drawn]
        if self.config.candidates == "top":
            items, probs = top_probs([{name: rows[drawn] for name, rows in table.items()} for table in tables], tau)
            losses = -(probs * student.catalogue_log_probs(queries / tau, items)).sum(dim=1)
        else:
            losses = self.on_catalogue(student, queries, drawn, tables)
        return spread(losses, drawn, batch)

    def on_catalogue(
        self, student: RecommenderModel, queries: Tensor, drawn: Tensor, tables: list[Mapping[str, Tensor]]
    ) -> Tensor:
        """Both softmaxes over all items, of the rows `drawn (n,)` of the batch with `queries (n, D)`: `(n,)`."""
        queries, items = queries / student.config.temperature, student.item_embeddings()
        losses = [
            catalogue_cross_entropy(
                queries,
                items,
                table["query_embeddings"][drawn],
                table["item_embeddings"],
                temperature=self.config.temperature,
            )
            for table in tables
        ]
        return torch.stack(losses).mean(dim=0)


def top_probs(tables: list[Mapping[str, Tensor]], temperature: float) -> tuple[Tensor, Tensor]:
    """The lists of all teachers side by side, `(Q, T M)`, and their mean distribution over them; 0 at empty places."""
    items = torch.cat([table["query_topk"] for table in tables], dim=1).long()
    probs = [top_softmax(table["query_topk"], table["query_scores"], temperature) for table in tables]
    return items, torch.cat(probs, dim=1) / len(tables)


def top_softmax(items: Tensor, scores: Tensor, temperature: float) -> Tensor:
    """Softmax over each list `(Q, M)`; 0 at empty places."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) / temperature
    return scores.masked_fill(items == 0, torch.finfo(scores.dtype).min).softmax(dim=1).masked_fill(items == 0, 0.0)

"""CKD-MDSR: curriculum-scheduled distillation from several pre-trained sequential teachers (arXiv 2401.00797).

The paper states what is distilled (scores of in-batch items), from what difficulty is built (length and popularity)
and what weighs the teachers (confidence and consistency, per instance). Its formulas are not public: those below are
reconstructed, see docs/papers.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import log
from typing import NamedTuple

import torch
from torch import Tensor

from ..batches.collators import UNLABELLED, histories_of
from ..batches.curriculum import Curriculum
from ..errors import ConfigError
from ..knowledge import Knowledge
from ..method import Method, SoftLabels
from ..recommenders.recommender import RecommenderModel, RecommenderOutput
from ..recommenders.user_recommender import UserRecommender
from ..teaching.teacher_weights import STATISTICS

CHOICES = {
    "candidates": ("in_batch", "catalogue", "list"),
    "score_normalization": ("zscore", "none", "minmax"),
    "confidence": ("softmax_ce", "ca_mkd", "rank", "entropy", "none"),
    "consistency": ("loo_kl", "jsd_only", "topk_overlap", "none"),
    "integration": ("product", "additive"),
}


@dataclass(frozen=True)
class CKDMDSRConfig:
    """Every switch of the method. Symbols as in docs/papers.md."""

    # C: targets of the step, or the teachers' common top list: `catalogue` sets it against the student's softmax over
    # all items, `list` against that over the list alone, for students without the former (DeepFM)
    candidates: str = "in_batch"
    temperature: float = 0.5  # T, on the calibrated teacher scores (and on student logits, but for `catalogue`)
    score_normalization: str = "zscore"
    confidence: str = "softmax_ce"  # c: how well a teacher predicts the label of this query
    conf_temperature: float = 1.0  # gamma_c
    conf_power: float = 1.0  # a
    consistency: str = "loo_kl"  # r: how well a teacher agrees with the others
    cons_temperature: float = 0.5  # gamma_d
    cons_power: float = 1.0  # b
    integration: str = "product"
    additive_mix: float = 0.5  # beta, of the additive integration
    instance_weighting: bool = True  # omega: queries on which teachers disagree weigh less
    mask_history: bool = True
    logq_correction: bool = False  # in batch: take log popularity off the student's scores
    warmup: float = 0.0  # share of all steps over which the weight of the method rises from 0 to its value
    overlap_size: int = 10  # m of topk_overlap
    curriculum: Curriculum | None = field(default_factory=Curriculum)

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}.")
        if not 0 <= self.warmup <= 1:
            raise ConfigError(f"warmup must lie in [0, 1], got {self.warmup}.")
        for name in ("temperature", "conf_temperature", "cons_temperature"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}.")


class Integration(NamedTuple):
    """What the teachers say together, and how each was weighed."""

    teacher_probs: Tensor  # (T, Q, C) p^k
    negative_entropy: Tensor  # (T, Q) sum_j p^k log p^k
    confidence: Tensor  # (T, Q) c^k, sums to 1 over teachers
    consistency: Tensor  # (T, Q) r^k, sums to 1 over teachers
    weights: Tensor  # (T, Q) alpha^k, sums to 1 over teachers
    divergence: Tensor  # (Q,) generalised Jensen-Shannon divergence of the teachers
    instance_weights: Tensor  # (Q,) omega
    fused: Tensor  # (Q, C) sum_k alpha^k p^k


class CKDMDSR(Method):
    """See the module. `requires` depends on the candidates: embeddings in batch, else the teachers' common list."""

    config_class = CKDMDSRConfig
    config: CKDMDSRConfig
    paper = "arXiv:2401.00797"

    @property
    def requires(self) -> frozenset[str]:
        if self.config.candidates == "in_batch":
            return frozenset({"query_embeddings", "item_embeddings"})
        return frozenset({"query_topk", "query_scores"})

    def curriculum(self) -> Curriculum | None:
        return self.config.curriculum

    def prepare(self, student: RecommenderModel, knowledge: Mapping[str, Knowledge]) -> None:
        if not isinstance(student, UserRecommender):
            return
        kind, candidates = type(student).__name__, self.config.candidates
        if candidates == "catalogue" and not student.scores_by_dot_product:
            raise ConfigError(
                f"{kind} has no softmax over the catalogue, so CKD-MDSR cannot teach it with candidates='catalogue'. "
                "Set candidates='list' (the teachers' common list) or candidates='in_batch'."
            )
        if candidates == "in_batch" and self.config.mask_history and not student.history_window:
            raise ConfigError(
                f"{kind} reads no histories in training, so CKD-MDSR cannot take them out of the batch's items. Set "
                "mask_history=False, or candidates='catalogue'."
            )

    def forward(
        self,
        student: RecommenderModel,
        batch: Mapping[str, Tensor],
        output: RecommenderOutput,
        knowledge: Mapping[str, Mapping[str, Tensor]],
    ) -> Tensor | SoftLabels:
        tables, config = list(knowledge.values()), self.config
        warm = warmup_factor(batch, config.warmup)
        if config.candidates != "in_batch":
            items = tables[0]["query_topk"].long()  # (Q, M), the same for every teacher
            scores = torch.stack([table["query_scores"].float() for table in tables])  # (T, Q, M)
            mask = items == 0  # a list shorter than M is filled with padding
            taught = integrate(scores, mask, positive_column(items, batch["targets"]), config)
            self.statistics = weighing(knowledge, taught)
            if config.candidates == "list":
                logits = student.score(output.query_embeddings, items)
                return warm * kd_loss(logits, taught, mask, config.temperature)
            return SoftLabels(items, warm * taught.instance_weights[:, None] * taught.fused)

        items = batch["step_targets"]  # (C,)
        mask = in_batch_mask(batch, items, config.mask_history)  # (Q, C)
        scores = torch.stack([t["query_embeddings"].float() @ t["item_embeddings"][items].float().T for t in tables])
        taught = integrate(scores, mask, positive_column(items.expand(len(mask), -1), batch["targets"]), config)
        self.statistics = weighing(knowledge, taught)
        logits = student.score(output.query_embeddings, items)
        if config.logq_correction:
            logits = logits - student.item_counts[items].clamp(min=1).log()
        return warm * kd_loss(logits, taught, mask, config.temperature)


def warmup_factor(batch: Mapping[str, Tensor], warmup: float) -> Tensor | float:
    """Rises linearly from 0 to 1 over the first `warmup` of the run; 1 outside a trainer."""
    return (batch["progress"] / warmup).clamp(max=1.0) if warmup and "progress" in batch else 1.0


def kd_loss(logits: Tensor, taught: Integration, mask: Tensor, temperature: float) -> Tensor:
    """`T^2 omega sum_k alpha^k KL(p^k || q)` of each query, `(Q,)`; q is the student's softmax over the candidates."""
    logits = logits.float() if logits.dtype != torch.float64 else logits
    log_q = (logits / temperature).masked_fill(mask, torch.finfo(logits.dtype).min).log_softmax(dim=1)
    cross_entropy = -(taught.fused * log_q.masked_fill(mask, 0.0)).sum(dim=1)
    return (
        temperature**2
        * taught.instance_weights
        * ((taught.weights * taught.negative_entropy).sum(dim=0) + cross_entropy)
    )


@torch.no_grad()
def integrate(scores: Tensor, mask: Tensor, positive: Tensor, config: CKDMDSRConfig) -> Integration:
    """Calibrate, weigh and fuse the teachers (spec 1.5 to 1.8).

    Args:
        scores: `(T, Q, C)` raw teacher scores.
        mask: `(Q, C)` true where a column is no candidate of this query.
        positive: `(Q,)` column of the label, -1 where it is unknown or absent; such queries are weighed without label.
    """
    log_probs = (calibrate(scores, mask, config.score_normalization) / config.temperature).log_softmax(dim=2)
    probs = log_probs.exp()  # (T, Q, C)
    log_probs = log_probs.masked_fill_(mask, 0.0)  # 0 log 0 is 0
    negative_entropy = _expected(probs, log_probs)  # (T, Q)
    teachers = len(scores)
    confidence = confidence_weights(log_probs, negative_entropy, mask, positive, config)  # (T, Q)
    average = probs.mean(dim=0)  # (Q, C)
    divergence = negative_entropy.mean(dim=0) - torch.xlogy(average, average).sum(dim=1)  # (Q,)
    agreement = consistency_weights(probs, negative_entropy, config)  # (T, Q)
    if config.integration == "product":
        weights = confidence**config.conf_power * agreement**config.cons_power
    else:
        weights = config.additive_mix * confidence + (1 - config.additive_mix) * agreement
    weights = weights / weights.sum(dim=0)
    omega = torch.ones_like(weights[0])
    if config.instance_weighting and teachers > 1:
        omega = (1 - divergence / log(teachers)).clamp(0, 1)
    fused = torch.einsum("tq,tqc->qc", weights, probs)
    return Integration(probs, negative_entropy, confidence, agreement, weights, divergence, omega, fused)


def weighing(teachers: Collection[str], taught: Integration) -> dict[str, Tensor]:
    """What is logged about each teacher, `(Q,)` by `<teacher>/<statistic>`; nothing where one teaches alone.

    Teachers that weigh the same share the lead, so that it adds up to 1 over teachers, as the other three do.
    """
    if len(teachers) == 1:
        return {}
    leads = (taught.weights == taught.weights.amax(dim=0)).to(taught.weights.dtype)  # (T, Q)
    told = (taught.confidence, taught.consistency, taught.weights, leads / leads.sum(dim=0))
    return {
        f"{teacher}/{name}": values[row]
        for row, teacher in enumerate(teachers)
        for name, values in zip(STATISTICS, told, strict=True)
    }


def calibrate(scores: Tensor, mask: Tensor, how: str) -> Tensor:
    """Bring teachers of different scale together, per query over its candidates; masked columns get the minimum."""
    if how == "zscore":
        count = (~mask).sum(dim=1).clamp(min=1)  # (Q,)
        scores = scores.masked_fill(mask, 0.0)
        scores = scores.sub_((scores.sum(dim=2) / count)[:, :, None]).masked_fill_(mask, 0.0)
        scores = scores.div_((_expected(scores, scores) / count).sqrt()[:, :, None] + 1e-6)
    elif how == "minmax":
        low = scores.masked_fill(mask, torch.inf).amin(dim=2, keepdim=True)
        high = scores.masked_fill(mask, -torch.inf).amax(dim=2, keepdim=True)
        scores = (scores - low) / (high - low + 1e-6)
    return scores.masked_fill(mask, torch.finfo(scores.dtype).min)


def confidence_weights(
    log_probs: Tensor, negative_entropy: Tensor, mask: Tensor, positive: Tensor, config: CKDMDSRConfig
) -> Tensor:
    """c `(T, Q)`: softmax over teachers of minus their loss on the label; queries without label use the entropy."""
    teachers = len(log_probs)
    if config.confidence == "none":
        return torch.full_like(negative_entropy, 1 / teachers)
    entropy = -negative_entropy  # (T, Q)
    column = positive.clamp(min=0).expand(teachers, -1)[:, :, None]
    cross_entropy = -log_probs.gather(2, column).squeeze(2)
    if config.confidence == "rank":
        better = (log_probs > log_probs.gather(2, column)).masked_fill(mask, False)
        cross_entropy = torch.log2(2.0 + better.sum(dim=2))  # rank counts from 1
    uncertainty = entropy if config.confidence == "entropy" else torch.where(positive >= 0, cross_entropy, entropy)
    if config.confidence == "ca_mkd":
        return (1 - uncertainty.softmax(dim=0)) / max(teachers - 1, 1)
    return (-uncertainty / config.conf_temperature).softmax(dim=0)


def consistency_weights(probs: Tensor, negative_entropy: Tensor, config: CKDMDSRConfig) -> Tensor:
    """r `(T, Q)`: how close each teacher is to the consensus of the others."""
    teachers = len(probs)
    if teachers == 1 or config.consistency in ("none", "jsd_only"):
        return torch.full_like(probs[:, :, 0], 1 / teachers)
    if config.consistency == "topk_overlap":
        size = min(config.overlap_size, probs.shape[2])
        chosen = torch.zeros_like(probs).scatter(2, probs.topk(size, dim=2).indices, 1.0)
        shared = torch.einsum("aqc,bqc->abq", chosen, chosen) / size
        overlap = (shared.sum(dim=1) - 1) / (teachers - 1)
        return (overlap + 1e-6) / (overlap + 1e-6).sum(dim=0)
    others = (probs.sum(dim=0) - probs) / (teachers - 1)  # (T, Q, C) leave-one-out consensus
    others = others.clamp_(min=torch.finfo(others.dtype).tiny).log_()
    divergence = negative_entropy - _expected(probs, others)  # KL(p^k || others)
    return (-divergence / config.cons_temperature).softmax(dim=0)


def _expected(p: Tensor, values: Tensor) -> Tensor:
    """`sum_j p_j values_j` over the last dimension, `(T, Q)`, without a product of that size."""
    return torch.einsum("tqc,tqc->tq", p, values)


def in_batch_mask(batch: Mapping[str, Tensor], items: Tensor, mask_history: bool) -> Tensor:
    """`(Q, C)` true where a candidate is no negative of the query: its own label again, or an item of its history.

    The first column that holds the label stays: it is the positive.
    """
    targets = batch["targets"]
    mask = (targets[:, None] == items[None, :]) & (targets[:, None] != UNLABELLED)
    column = mask.int().argmax(dim=1)  # first column of the label
    has_label = mask.any(dim=1)
    mask[has_label.nonzero().squeeze(1), column[has_label]] = False
    if mask_history:
        history = histories_of(batch)  # (Q, H)
        # ids are made dense first, so that the table grows with the batch and not with the catalogue
        known, dense = torch.cat([history.new_zeros(1), items, history.flatten()]).unique(return_inverse=True)
        seen = torch.zeros(len(targets), len(known), dtype=torch.bool, device=targets.device)
        seen.scatter_(1, dense[1 + len(items) :].view_as(history), True)
        seen[:, dense[0]] = False  # padding was never bought
        repeated = seen[:, dense[1 : 1 + len(items)]]
        repeated[has_label.nonzero().squeeze(1), column[has_label]] = False
        mask |= repeated
    return mask


def positive_column(items: Tensor, targets: Tensor) -> Tensor:
    """`(Q,)` first column of `items (Q, C)` that holds the label, -1 where none does."""
    match = items == targets[:, None]
    return torch.where(match.any(dim=1), match.int().argmax(dim=1), -1)

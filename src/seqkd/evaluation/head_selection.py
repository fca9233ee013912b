"""Which head of several is kept, and how good they would be together."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..batches.collators import SequenceDataset
from ..errors import ConfigError
from ..functional.head_consensus import HeadConsensusConfig, head_consensus
from ..knowledge.interview import best_items
from ..recommenders.multi_head import MultiHeadRecommender
from .ranks import rank_targets


def head_metrics(
    model: MultiHeadRecommender, dataset: SequenceDataset, *, ks: tuple[int, ...] = (10, 50), batch_size: int = 512
) -> dict[str, dict[str, float]]:
    """The metrics of every head by name, full ranking without what a user has."""
    found = {}
    for head in model.head_names:
        with model.answering(head):
            found[head] = rank_targets(model, dataset, depth=max(ks), batch_size=batch_size).metrics(ks)
    return found


def best_head(
    model: MultiHeadRecommender, dataset: SequenceDataset, *, metric: str = "ndcg@10", batch_size: int = 512
) -> str:
    """The head to keep: `model.keep_head(best_head(model, valid))`; the first of those that are equally good.

    Args:
        dataset: of validation.
        metric: as in `ranking_metrics`.

    Raises:
        ConfigError: the metric has no cut-off.
    """
    name, _, cut = metric.partition("@")
    if name not in ("recall", "ndcg", "mrr") or not cut.isdigit():
        raise ConfigError(f"metric must be recall, ndcg or mrr at a cut-off, as 'ndcg@10'; got {metric!r}.")
    found = head_metrics(model, dataset, ks=(int(cut),), batch_size=batch_size)
    return max(found, key=lambda head: found[head][metric])


@torch.no_grad()
def consensus_topk(
    model: MultiHeadRecommender,
    sequences: SequenceDataset,
    k: int,
    config: HeadConsensusConfig | None = None,
    *,
    batch_size: int = 512,
) -> Tensor:
    """What the heads of a model agree on now, `(N, k)` int32 by query id, without what a query's history holds.

    An ensemble for comparison: it costs as much as all heads. Ranks alone count, for there is one snapshot.
    """
    config = replace(config or HeadConsensusConfig(), consistency="none")
    lists = []
    for head in model.head_names:
        with model.answering(head):
            lists.append(best_items(model, sequences, config.top, batch_size=batch_size))
    return head_consensus(torch.stack(lists)[None], k, config)[0].int()

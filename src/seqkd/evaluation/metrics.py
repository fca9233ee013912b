"""Ranking metrics from ranks alone, of one relevant item per query or of sets: no score matrix is ever gathered."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..catalogue import PADDING
from ..errors import ConfigError

TIES = ("strictly_greater", "against")


def ranks_from_topk(topk: Tensor, targets: Tensor) -> Tensor:
    """0-based rank of each target in its list, K where it is absent.

    Args:
        topk: `(Q, K)` internal ids, best first; unused places hold an id that is no target (0 or below).
        targets: `(Q,)` internal ids.

    Returns:
        `(Q,)` int64.
    """
    length = topk.shape[1]
    places = torch.arange(length, device=topk.device).expand_as(topk)
    hits = places.masked_fill(topk != targets[:, None], length)  # (Q, K)
    return torch.cat([hits, hits.new_full((len(hits), 1), length)], dim=1).amin(1)


def ranks_from_scores(scores: Tensor, targets: Tensor, ties: str = "strictly_greater") -> Tensor:
    """0-based rank of each target among all items, `(Q,)` int64; the padding column never counts.

    Several times faster than sorting out a top-k list, and exact at every depth.

    Args:
        scores: `(Q, I+1)`.
        targets: `(Q,)` internal ids.
        ties: `strictly_greater` ranks a target before the items with its score, `against` behind them.

    Raises:
        ConfigError: `ties` is neither.
    """
    if ties not in TIES:
        raise ConfigError(f"ties must be one of {TIES}, got {ties!r}.")
    own = scores.gather(1, targets[:, None])  # (Q, 1)
    # Counted from behind: NaN compares as False, so a broken model ranks its targets last and not first.
    behind = scores < own if ties == "against" else scores <= own  # (Q, I+1), with <= the target too
    behind[:, PADDING] = False
    counts = behind.view(torch.int8).sum(1, dtype=torch.int32)  # bytes add up several times faster than bools
    return scores.shape[1] - 1 - int(ties == "against") - counts.long()


def ranking_metrics(ranks: Tensor, ks: Sequence[int]) -> dict[str, float]:
    """Means over queries of Recall@k (the hit rate, there is one relevant item), NDCG@k and MRR@k.

    Args:
        ranks: `(Q,)` 0-based. Ranks taken from a list of K items are exact for every k up to K.
        ks: the cut-offs.

    Returns:
        `{"recall@10": ..., "ndcg@10": ..., "mrr@10": ...}` for every k, in that order; NaN without queries.

    Raises:
        ConfigError: a cut-off is below 1.
    """
    if any(k < 1 for k in ks):
        raise ConfigError(f"cut-offs must be at least 1, got {list(ks)}.")
    place = ranks.double() + 1  # (Q,) 1-based
    gains = {"recall": torch.ones_like(place), "ndcg": 1 / torch.log2(place + 1), "mrr": 1 / place}
    return {f"{name}@{k}": float((gain * (place <= k)).mean()) for k in ks for name, gain in gains.items()}


def set_metrics(counts: Tensor, ks: Sequence[int]) -> dict[str, float]:
    """Means over users of Recall@k and NDCG@k, where each user has a set of relevant items.

    `recall@k` is the share of the set among the first k, `|hits| / |set|`: a set of more than k items cannot be found
    whole. `ndcg@k` is the discounted gain of the hits over that of the best list, which has `min(k, |set|)` of them.

    Args:
        counts: `(S+1, R)`: how many items of sets of size s (the row) have rank r (the column, from 0).
        ks: the cut-offs, below R.

    Returns:
        `{"recall@10": ..., "ndcg@10": ...}` for every k, in that order; NaN without users.

    Raises:
        ConfigError: a cut-off is below 1.
    """
    if any(k < 1 for k in ks):
        raise ConfigError(f"cut-offs must be at least 1, got {list(ks)}.")
    counts = counts.double()
    sizes = torch.arange(len(counts), device=counts.device).clamp(min=1)  # nobody's set is empty
    users = (counts.sum(1) / sizes).sum()
    discounts = 1 / torch.log2(torch.arange(max(ks), device=counts.device).double() + 2)
    metrics = {}
    for k in ks:
        ideal = discounts[:k].cumsum(0)[sizes.clamp(max=k) - 1]  # (S+1,)
        metrics[f"recall@{k}"] = float((counts[:, :k].sum(1) / sizes).sum() / users)
        metrics[f"ndcg@{k}"] = float((counts[:, :k] @ discounts[:k] / ideal).sum() / users)
    return metrics

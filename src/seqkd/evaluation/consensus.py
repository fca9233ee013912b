"""How good several models are together, by the order in which they rank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..batches.collators import SequenceDataset, ranges
from ..batches.target_sets import TargetSets
from ..errors import ConfigError
from ..knowledge.ensemble import consensus
from ..knowledge.interview import best_items
from ..recommenders.recommender import RecommenderModel
from .metrics import ranks_from_topk
from .ranks import metrics_of

LISTED = 200  # of each model's best items; an item that one does not list counts as standing behind them


def consensus_metrics(
    models: Sequence[RecommenderModel],
    dataset: SequenceDataset,
    ks: Sequence[int] = (10, 50),
    *,
    importance: str = "power",
    batch_size: int = 512,
) -> dict[str, float]:
    """Metrics of the list on which models agree (`seqkd.rank_consensus`), masked, over the whole catalogue.

    Args:
        models: of the same items, and users where they know some.
        dataset: as of `rank_targets`: each target after what comes before it, or `TargetSets`.
        importance: of a rank, see `rank_consensus`.

    Raises:
        ConfigError: there is no model, or a cut-off is beyond what is listed.
    """
    if not models or max(ks) > LISTED:
        raise ConfigError(f"an ensemble needs a model and cut-offs up to {LISTED}, got {len(models)} and {list(ks)}.")
    lists = [best_items(model, dataset, LISTED, batch_size=batch_size) for model in models]
    agreed, _ = consensus(lists, torch.ones(len(lists)), importance=importance, k=max(ks))
    if isinstance(dataset, TargetSets):
        targets, row = dataset.targets_of(torch.from_numpy(dataset.query_start.copy()))
        asked, sizes = dataset.query_start[row], np.bincount(row)[row]
    else:
        count = np.maximum(np.diff(dataset.offsets) - dataset.first_target, 0)
        row = np.repeat(np.arange(len(dataset)), count)
        position = dataset.first_target[row] + ranges(count)
        targets = dataset.values[dataset.offsets[:-1][row] + position].astype(np.int64)
        asked, sizes = dataset.query_start[row] + ranges(count), None
    ranks = ranks_from_topk(agreed[torch.from_numpy(asked)].long(), torch.from_numpy(targets)).numpy()
    depth = agreed.shape[1]
    if sizes is None:
        return metrics_of(torch.from_numpy(np.bincount(ranks, minlength=depth + 1)), ks)
    cells = (int(sizes.max(initial=0)) + 1, depth + 1)
    counts = np.bincount(sizes * cells[1] + ranks, minlength=cells[0] * cells[1])
    return metrics_of(torch.from_numpy(counts.reshape(cells)), ks)

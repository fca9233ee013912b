"""Full-catalogue evaluation: the rank of every target, and a histogram of ranks is all that leaves a process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from .collators import UNLABELLED, SequenceDataset
from .errors import ConfigError
from .metrics import ranking_metrics, ranks_from_scores
from .recommender import RecommenderModel

HISTORY = ("masked", "unmasked")


@dataclass(frozen=True)
class Ranks:
    """0-based rank of every target among the whole catalogue, `(Q,)`; `depth` where it is not among the first `depth`.

    `history_lengths (Q,)` and `targets (Q,)` are there for slices by history length and item frequency.
    """

    ranks: np.ndarray
    targets: np.ndarray
    history_lengths: np.ndarray
    depth: int
    history: str

    def histogram(self) -> torch.Tensor:
        """`(depth+1,)` counts; integers, so that sums over processes are exact."""
        return torch.from_numpy(np.bincount(self.ranks, minlength=self.depth + 1))

    def metrics(self, ks: Sequence[int] = (10, 50)) -> dict[str, float]:
        """Recall, NDCG and MRR at each cut-off."""
        return metrics_of(self.histogram(), ks)


def metrics_of(histogram: torch.Tensor, ks: Sequence[int]) -> dict[str, float]:
    """Metrics from `(depth+1,)` counts of ranks: the same numbers whatever processes counted them.

    Raises:
        ConfigError: a cut-off is larger than the depth to which ranks are known.
    """
    if max(ks) >= len(histogram):
        raise ConfigError(
            f"metrics at {max(ks)} need lists of that length; only the first {len(histogram) - 1} items were ranked."
        )
    return ranking_metrics(torch.arange(len(histogram)).repeat_interleave(histogram.cpu()), ks)


@torch.no_grad()
def rank_targets(
    model: RecommenderModel,
    dataset: SequenceDataset,
    *,
    history: str = "masked",
    depth: int = 50,
    batch_size: int = 512,
    shard: tuple[int, int] = (0, 1),
) -> Ranks:
    """Rank the target of every labelled query among the whole catalogue.

    Args:
        history: `masked` takes the items a user already has out of the ranking, `unmasked` leaves them in.
        depth: ranks beyond it count as not found. A tie with the target counts against the model.
        shard: (index, count): rank every count-th row only, from index on.

    Raises:
        ConfigError: `history` is neither word, or the model knows users and the rows number them otherwise.
    """
    if history not in HISTORY:
        raise ConfigError(f"history must be one of {HISTORY}, got {history!r}.")
    if model.users is not None and dataset.users != model.users:
        raise ConfigError(
            "the rows and the model do not number users alike; ranks would be those of other users. Give the rows the "
            "users of the model: SequenceDataset(rows, num_items, users=split.users)."
        )
    rows = Subset(dataset, range(shard[0], len(dataset), shard[1]))
    loader = DataLoader(rows, batch_size=batch_size, collate_fn=model.collator(seen=history == "masked"))
    was_training = model.training
    if was_training:  # a model that is in evaluation already may hold its items ready
        model.eval()
    ranks, targets, lengths = [], [], []
    for batch in loader:
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        scores = model.score(model(**{name: batch[name] for name in model.inputs}).query_embeddings)  # (Q, I+1)
        if history == "masked":
            scores[batch["seen_query"], batch["seen_items"]] = torch.finfo(scores.dtype).min
        # Counting what scores at least as high is several times cheaper than sorting out a top-k list, and the same.
        ranks.append(ranks_from_scores(scores, batch["targets"], ties="against").clamp(max=depth).cpu())
        targets.append(batch["targets"].cpu())
        lengths.append(batch["history_lengths"].cpu())
    if was_training:
        model.train()
    labelled = torch.cat(targets) != UNLABELLED if targets else torch.zeros(0, dtype=torch.bool)

    def column(parts: list[torch.Tensor]) -> np.ndarray:
        return torch.cat(parts)[labelled].numpy() if parts else np.zeros(0, dtype=np.int64)

    return Ranks(column(ranks), column(targets), column(lengths), depth=depth, history=history)

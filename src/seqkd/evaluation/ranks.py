"""Full-catalogue evaluation: the rank of every target, and a histogram of ranks is all that leaves a process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from ..batches.collators import SequenceDataset, require_sequences
from ..batches.target_sets import TargetSets
from ..errors import ConfigError
from ..recommenders.catalogue_scores import catalogue_scores, pairs_within
from ..recommenders.recommender import RecommenderModel
from .metrics import ranking_metrics, ranks_from_scores, set_metrics

HISTORY = ("masked", "unmasked")


@dataclass(frozen=True)
class Ranks:
    """0-based rank of every target among the whole catalogue, `(Q,)`; `depth` where it is not among the first `depth`.

    `history_lengths (Q,)` and `targets (Q,)` are there for slices by history length and item frequency, `rows (Q,)` for
    those by user: the row of the data set that each target is of, so that `dataset.user[ranks.rows]` are internal user
    ids. Where sets were asked for (`TargetSets`), there is an entry for each item of each set: `set_sizes (Q,)`, and
    `largest_set`, which is of all rows, also of those that other processes rank.
    """

    ranks: np.ndarray
    targets: np.ndarray
    history_lengths: np.ndarray
    depth: int
    history: str
    set_sizes: np.ndarray | None = None
    largest_set: int = 0
    rows: np.ndarray | None = None

    @property
    def num_queries(self) -> int:
        """How many were asked: for one target each, or for a set."""
        return len(self.ranks) if self.set_sizes is None else round(float((1 / self.set_sizes).sum()))

    def histogram(self) -> torch.Tensor:
        """`(depth+1,)` counts, of sets `(largest_set+1, depth+1)`; integers, so that sums over processes are exact."""
        if self.set_sizes is None:
            return torch.from_numpy(np.bincount(self.ranks, minlength=self.depth + 1))
        cells = (self.largest_set + 1, self.depth + 1)
        counts = np.bincount(self.set_sizes * cells[1] + self.ranks, minlength=cells[0] * cells[1])
        return torch.from_numpy(counts.reshape(cells))

    def metrics(self, ks: Sequence[int] = (10, 50)) -> dict[str, float]:
        """Recall, NDCG and MRR at each cut-off, means over queries; of sets Recall and NDCG, means over users."""
        return metrics_of(self.histogram(), ks)


def metrics_of(histogram: torch.Tensor, ks: Sequence[int]) -> dict[str, float]:
    """Metrics from `(depth+1,)` counts of ranks, or from those of sets: the same whatever processes counted them.

    Raises:
        ConfigError: a cut-off is larger than the depth to which ranks are known.
    """
    depth = histogram.shape[-1] - 1
    if max(ks) > depth:
        raise ConfigError(f"metrics at {max(ks)} need lists of that length; only the first {depth} items were ranked.")
    if histogram.dim() == 2:
        return set_metrics(histogram.cpu(), ks)
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
        dataset: rows, each of whose targets is asked after what comes before it; `TargetSets` asks for all at once, and
            the items of a set are ranked in one list, each among the others.
        history: `masked` takes the items a user already has out of the ranking, `unmasked` leaves them in.
        depth: ranks beyond it count as not found. A tie with the target counts against the model.
        shard: (index, count): rank every count-th row only, from index on.

    Raises:
        ConfigError: `history` is neither word, or the model knows users and the rows number them otherwise.
        DataError: the rows are a bare part of a split.
    """
    if history not in HISTORY:
        raise ConfigError(f"history must be one of {HISTORY}, got {history!r}.")
    require_sequences(dataset)
    if model.users is not None and dataset.users != model.users:
        raise ConfigError(
            "the rows and the model do not number users alike; ranks would be those of other users. Give the rows the "
            "users of the model: SequenceDataset(rows, num_items, users=split.users)."
        )
    sets = dataset if isinstance(dataset, TargetSets) else None
    rows = Subset(dataset, range(shard[0], len(dataset), shard[1]))
    collate = model.collator(seen=history == "masked", tail=sets is not None)
    loader = DataLoader(rows, batch_size=batch_size, collate_fn=collate)
    was_training = model.training
    if was_training:  # a model that is in evaluation already may hold its items ready
        model.eval()
    columns: dict[str, list[torch.Tensor]] = {"ranks": [], "targets": [], "lengths": [], "sizes": [], "queries": []}
    for batch in loader:
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        queries = model(**{name: batch[name] for name in model.inputs}).query_embeddings  # (Q, D)
        targets, owner = batch["targets"], torch.arange(len(queries), device=queries.device)
        if sets is not None:
            targets, owner = (torch.from_numpy(ids).to(model.device) for ids in sets.targets_of(batch["query_ids"]))
            columns["sizes"].append(owner.bincount(minlength=len(queries))[owner])
        for part, scores in catalogue_scores(model, queries):
            if history == "masked":
                seen = pairs_within(batch["seen_query"], part)
                had = batch["seen_query"][seen] - part.start, batch["seen_items"][seen]
                scores[had] = torch.finfo(scores.dtype).min
            asked = pairs_within(owner, part)
            whose, what = owner[asked] - part.start, targets[asked]
            for some, wanted in zip(whose.split(len(scores)), what.split(len(scores)), strict=True):
                # Counting what scores at least as high is several times cheaper than sorting out a top-k list, and the
                # same; one target of each query needs no copy of its scores.
                mine = scores if sets is None else scores[some]
                columns["ranks"].append(ranks_from_scores(mine, wanted, ties="against"))
        columns["targets"].append(targets)
        columns["lengths"].append(batch["history_lengths"][owner])
        columns["queries"].append(batch["query_ids"][owner])
    if was_training:
        model.train()
    none = torch.zeros(0, dtype=torch.int64)
    told = {name: torch.cat([none, *(part.cpu() for part in parts)]).numpy() for name, parts in columns.items()}
    ranks = Ranks(
        np.minimum(told["ranks"], depth),
        told["targets"],
        told["lengths"],
        depth=depth,
        history=history,
        rows=_rows_of(dataset, told["queries"]),
    )
    return (
        ranks if sets is None else replace(ranks, set_sizes=told["sizes"], largest_set=int(sets.sizes.max(initial=0)))
    )


def _rows_of(dataset: SequenceDataset, query_ids: np.ndarray) -> np.ndarray:
    """The row that each query id is reserved by, `(Q,)`."""
    order = np.argsort(dataset.query_start)
    return order[np.searchsorted(dataset.query_start[order], query_ids, side="right") - 1]

"""One list of items per query that several teachers score, so that they can be compared and weighed per query."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..batches.collators import UNLABELLED, SequenceDataset
from ..catalogue import PADDING
from ..errors import KnowledgeError
from .ensemble import CHUNK, ensemble
from .knowledge import Knowledge
from .store.table import blank


def common_lists(
    knowledges: Mapping[str, Knowledge], *, k: int, labels: Tensor | None = None, dtype: torch.dtype = torch.float16
) -> dict[str, Knowledge]:
    """The same knowledge with one `query_topk (N, k)` for all teachers and each teacher's `query_scores` on it.

    The list holds the k items of highest average probability and, if it is known, the label. An item that a teacher
    did not list gets the lowest score of that teacher's list, which it cannot exceed: export lists longer than k.

    Args:
        knowledges: by teacher, each with `query_topk`.
        labels: `(N,)` label of every query or `UNLABELLED`, see `labels_of`.

    Raises:
        KnowledgeError: the teachers speak about different items, splits, parts or queries, or only some left out what
            users have (`filter_seen`).
    """
    together = ensemble(knowledges, k=k)
    items = together.rows("query_topk", torch.arange(together.num_queries)).long()  # (N, k)
    if labels is not None:
        if len(labels) != len(items):
            raise KnowledgeError(f"{len(labels)} labels for {len(items)} queries; take labels_of the exported part.")
        missing = (labels != UNLABELLED) & ~(items == labels[:, None]).any(dim=1)
        items[missing, -1] = labels[missing]
    answered = {}
    for name, knowledge in knowledges.items():
        scores = blank("query_scores", tuple(items.shape), dtype)
        for rows in torch.arange(len(items)).split(CHUNK):
            known = knowledge.rows("query_topk", rows).long(), knowledge.rows("query_scores", rows).float()
            scores[rows] = (
                _scores_of(items[rows], *known).to(dtype).masked_fill(items[rows] == PADDING, torch.finfo(dtype).min)
            )
        tables = {"query_topk": items.int(), "query_scores": scores}
        answered[name] = Knowledge.from_tables(tables, source=knowledge.source, catalogue=knowledge.catalogue)
    return answered


def _scores_of(items: Tensor, topk: Tensor, scores: Tensor) -> Tensor:
    """Scores `(R, k)` of `items` in the lists `topk (R, M)`; what is not listed gets the list's lowest score."""
    lowest = scores.masked_fill(topk == PADDING, torch.inf).amin(dim=1, keepdim=True)
    lowest = lowest.masked_fill(lowest.isinf(), 0.0)  # an empty list says nothing: all items alike
    listed, order = topk.sort(dim=1)
    place = torch.searchsorted(listed, items).clamp(max=topk.shape[1] - 1)
    found = (listed.gather(1, place) == items) & (items != PADDING)
    return torch.where(found, scores.gather(1, order).gather(1, place), lowest)


def labels_of(dataset: SequenceDataset) -> Tensor:
    """The label of every query id of a part, `(N,)`; `UNLABELLED` for tails and ids that nobody asks."""
    labels = torch.full((dataset.num_queries,), UNLABELLED, dtype=torch.int64)
    for items, first, start, _ in dataset:
        labels[start : start + len(items) - first] = torch.tensor(items[first:], dtype=torch.int64)
    return labels

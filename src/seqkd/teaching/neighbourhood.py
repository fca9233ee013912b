"""Who interacted with whom, as means over neighbours: of a user's items, of an item's users."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..batches.positives import Positives
from ..knowledge import Knowledge


class Neighbourhood(NamedTuple):
    """`.5 (own vector + mean of the neighbours' vectors)` of a teacher, eq. of PHR's enrichment.

    Whoever has no neighbour about whom the teacher says something keeps the own vector.
    """

    query_user: Tensor  # (N,) internal id of the user who asks
    items_of_user: Tensor  # (U+1, d) mean over a user's items
    enriched_items: Tensor  # (I+1, d)

    def enrich_queries(self, query_ids: Tensor, own: Tensor) -> Tensor:
        """`(Q, d)` of the teacher's rows `own (Q, d)` of queries `(Q,)`."""
        items = self.items_of_user[self.query_user[query_ids]]
        return halfway(own.to(items.dtype), items)


def neighbourhood(positives: Positives, knowledge: Knowledge) -> Neighbourhood:
    """From the training part and a teacher's embeddings; a user is the user's last query.

    Nothing of size U x I or pairs x d is held: the means are two sparse products, float32 on the CPU.
    """
    wide = positives.num_items + 1
    users, items = (torch.from_numpy(part) for part in np.divmod(positives.keys, wide))
    last = np.zeros(int(users.max()) + 1, dtype=np.int64)
    last[positives.query_user] = np.arange(len(positives.query_user))  # of equal ones the last assignment stays
    user_vectors = knowledge.rows("query_embeddings", torch.from_numpy(last)).float()  # (U+1, d)
    user_vectors[0] = 0.0  # nobody
    item_vectors = knowledge.table("item_embeddings").float()
    return Neighbourhood(
        torch.from_numpy(positives.query_user),
        means(users, items, item_vectors, len(last)),
        halfway(item_vectors, means(items, users, user_vectors, wide)),
    )


def means(of: Tensor, neighbours: Tensor, vectors: Tensor, size: int) -> Tensor:
    """`(size, d)`: for every row the mean over its neighbours that have a vector, 0 where there is none.

    Args:
        of, neighbours: `(pairs,)` rows of the result and of `vectors (n, d)`.
    """
    known = vectors.any(dim=1, keepdim=True).to(vectors.dtype)  # (n, 1)
    shape = (size, len(vectors))
    pairs = torch.sparse_coo_tensor(torch.stack([of, neighbours]), torch.ones(len(of)), shape, check_invariants=True)
    sums = torch.sparse.mm(pairs, torch.cat([vectors, known], dim=1))
    return sums[:, :-1] / sums[:, -1:].clamp(min=1.0)


def halfway(own: Tensor, mean: Tensor) -> Tensor:
    """The middle of both, row by row; the own one where the mean is of nobody."""
    return torch.where(mean.any(dim=1, keepdim=True), 0.5 * (own + mean), own)

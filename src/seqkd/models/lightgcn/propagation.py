"""Light graph convolution: the graph of users and items, and the mean over its K propagations.

`A_hat = D^-1/2 A D^-1/2` (LightGCN eq. 7) has two blocks, users from items and items from users. A row of a
block is a weighted bag of neighbours, so a layer is two calls of `embedding_bag`, on a CPU some 3 times as fast as two
sparse CSR products. (CiteULike, one thread, milliseconds for three layers and their backward; CSR with autograd's own
backward in brackets: D=20 7 (44), D=64 20 (73), D=200 54 (201).)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...catalogue import PADDING

BLOCK = 32  # columns propagated at a time: they do not touch, and so many of some 10^4 rows stay in the cache


@dataclass(frozen=True)
class Graph:
    """The two blocks of `A_hat`, each in rows: who the neighbours are, where each row starts, and the weights.

    `item_order (E,)` brings the interactions, which come by user, into the order of their items.
    """

    items_of_users: Tensor  # (E,) int32
    user_starts: Tensor  # (U+2,) int32
    users_of_items: Tensor  # (E,) int32
    item_starts: Tensor  # (I+2,) int32
    item_order: Tensor  # (E,) int64
    user_weights: Tensor  # (E,) w_ui / sqrt(d_u d_i)
    item_weights: Tensor  # (E,) the same, by item
    item_degrees: Tensor  # (I+1,) d_i, the sum of w_ui over users; without weights |N_i|

    @classmethod
    def of(
        cls, edges: Tensor, num_users: int, num_items: int, dtype: torch.dtype, edge_weights: Tensor | None = None
    ) -> Graph:
        """From `edges (2, E)`, distinct and sorted by user, and what each counts, `edge_weights (E,)`; 1 without."""
        users, items = edges.long()
        counts, item_counts = users.bincount(minlength=num_users + 1), items.bincount(minlength=num_items + 1)
        user_degrees, item_degrees = counts, item_counts
        if edge_weights is not None:
            user_degrees = users.bincount(edge_weights, minlength=num_users + 1)
            item_degrees = items.bincount(edge_weights, minlength=num_items + 1)
        degrees = (user_degrees[users] * item_degrees[items]).to(torch.promote_types(dtype, torch.float32))
        weights = degrees.rsqrt() if edge_weights is None else degrees.rsqrt() * edge_weights
        weights = weights.to(dtype)  # (E,)
        order = items.argsort(stable=True)
        return cls(
            items_of_users=edges[1].contiguous(),
            user_starts=F.pad(counts.cumsum(0), (1, 0)).int(),
            users_of_items=edges[0][order],
            item_starts=F.pad(item_counts.cumsum(0), (1, 0)).int(),
            item_order=order,
            user_weights=weights,
            item_weights=weights[order],
            item_degrees=item_degrees,
        )

    def drop_edges(self, share: float) -> Graph:
        """Without a random `share` of the interactions, in both directions; the others weigh more, so that the
        expectation stays. Degrees remain those of the whole graph."""
        kept = torch.rand_like(self.user_weights) >= share
        weights = self.user_weights * kept / (1 - share)
        return replace(self, user_weights=weights, item_weights=weights[self.item_order])

    def users_from(self, items: Tensor) -> Tensor:
        """Each user `(U+1, D)` as the weighted sum of its items `(I+1, D)`."""
        return _bags(self.items_of_users, self.user_starts, self.user_weights, items)

    def items_from(self, users: Tensor) -> Tensor:
        """Each item `(I+1, D)` as the weighted sum of its users `(U+1, D)`."""
        return _bags(self.users_of_items, self.item_starts, self.item_weights, users)


def _bags(rows: Tensor, starts: Tensor, weights: Tensor, table: Tensor) -> Tensor:
    return F.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=weights, include_last_offset=True)


def mean_of_layers(users: Tensor, items: Tensor, graph: Graph, num_layers: int) -> tuple[Tensor, Tensor]:
    """`sum_k A_hat^k E / (K+1)` over layers 0 to K (LightGCN eq. 4 and 8) of `users (U+1, D)` and `items (I+1, D)`."""
    return _MeanOfLayers.apply(users, items, graph, num_layers)


class _MeanOfLayers(torch.autograd.Function):
    """A linear map that is symmetric: its backward is itself, and it keeps no tensor for it."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, graph: Graph, num_layers: int) -> tuple[Tensor, Tensor]:
        ctx.graph, ctx.num_layers = graph, num_layers
        return _mean_of_layers(users, items, graph, num_layers)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, users: Tensor, items: Tensor) -> tuple[Tensor | None, ...]:
        users, items = _mean_of_layers(users.contiguous(), items.contiguous(), ctx.graph, ctx.num_layers)
        users[PADDING] = items[PADDING] = 0  # these rows are nobody's and stay zero
        return users, items, None, None


def _mean_of_layers(users: Tensor, items: Tensor, graph: Graph, num_layers: int) -> tuple[Tensor, Tensor]:
    parts = zip(users.split(BLOCK, dim=1), items.split(BLOCK, dim=1), strict=True)
    means = [_mean_of_columns(part.contiguous(), other.contiguous(), graph, num_layers) for part, other in parts]
    user_parts, item_parts = zip(*means, strict=True)
    return torch.cat(user_parts, dim=1), torch.cat(item_parts, dim=1)


def _mean_of_columns(users: Tensor, items: Tensor, graph: Graph, num_layers: int) -> tuple[Tensor, Tensor]:
    user_sums, item_sums = users, items
    for _ in range(num_layers):  # Horner's scheme: E + A_hat (E + A_hat (...))
        user_sums, item_sums = graph.users_from(item_sums).add_(users), graph.items_from(user_sums).add_(items)
    return user_sums / (num_layers + 1), item_sums / (num_layers + 1)

"""Cosine similarities among entities: the topology that FTD and HTD (arXiv 2106.08700) hand over."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..errors import ConfigError
from ..knowledge import Knowledge


def unit(vectors: Tensor) -> Tensor:
    """Rows `(n, D)` at length 1; a row of zeros stays so and gets no gradient (its direction is not defined)."""
    squared = vectors.square().sum(dim=1, keepdim=True)
    nothing = squared == 0
    return vectors * squared.masked_fill(nothing, 1.0).rsqrt().masked_fill(nothing, 0.0)


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """`(n, m)` of rows `a (n, D)` and `b (m, D)`."""
    return unit(a) @ unit(b).T


def group_means(vectors: Tensor, groups: Tensor) -> Tensor:
    """The prototypes `(G, D)`: the mean of the rows of each group that occurs in `groups (n,)`, in ascending order."""
    present, dense = groups.unique(return_inverse=True)
    sums = vectors.new_zeros(len(present), vectors.shape[1]).index_add(0, dense, vectors)
    return sums / dense.bincount(minlength=len(present))[:, None]


def require_one_space(knowledge: Mapping[str, Knowledge]) -> None:
    """Queries and items of each teacher must be comparable.

    Raises:
        ConfigError: their widths differ.
    """
    for teacher, said in knowledge.items():
        widths = [said.tables[name].shape[1] for name in ("query_embeddings", "item_embeddings")]
        if widths[0] != widths[1]:
            raise ConfigError(
                f"teacher {teacher!r} has queries of width {widths[0]} and items of width {widths[1]}, which have no "
                "cosine. Export both from one model, or use DE, which compares neither with the other."
            )

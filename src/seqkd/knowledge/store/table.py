"""One table over its shards."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Table:
    """The rows of one table. Nothing is read before it is indexed."""

    def __init__(self, shards: Sequence[Tensor]) -> None:
        self.shards = tuple(shards)
        self.ends = torch.tensor([len(shard) for shard in shards]).cumsum(0)
        self.shape = (int(self.ends[-1]), *self.shards[0].shape[1:])
        self.dtype = self.shards[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """`(n,)` row numbers -> `(n, ...)`, both on the CPU."""
        if len(self.shards) == 1:
            return self.shards[0][rows]
        out = torch.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        owner = torch.bucketize(rows, self.ends, right=True)
        for number in owner.unique().tolist():
            here = (owner == number).nonzero().squeeze(1)
            shard = self.shards[number]
            out[here] = shard[rows[here] - (self.ends[number] - len(shard))]
        return out

    def all(self) -> Tensor:
        return self.shards[0] if len(self.shards) == 1 else torch.cat(self.shards)


def blank(name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Rows of table `name` that say nothing: item 0, zero vectors, the lowest score."""
    if name.endswith("_scores"):
        return torch.full(tuple(shape), torch.finfo(dtype).min, dtype=dtype)
    return torch.zeros(tuple(shape), dtype=dtype)

"""Contrastive distillation among neighbours (LWC-KD, doi:10.1145/3459637.3482117): an old vector should be nearer to
the current vectors of its neighbours than to those of all others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..batches.edges import Neighbours
from ..catalogue import PADDING
from ..functional.catalogue_log_sum_exp import log_sum_exp_without, lowest

CHUNK = 2**22  # logits held at a time where all are asked; their gradient is added to a whole table for each piece


class Side(NamedTuple):
    """The users, or the items, of a batch who were known before, and everybody's vectors, layer by layer."""

    ids: Tensor  # (n,) distinct
    weights: Tensor  # (n,)
    old: Tensor  # (L, N+1, D), of all who were known before, row 0 padding
    current: Sequence[Tensor]  # L times (N+1, D), of the same

    @classmethod
    def of(cls, ids: Tensor, old: Tensor, current: Sequence[Tensor]) -> Side:
        """Those of the batch's `ids (Q,)` who are in the `old` tables; `current` ones may have more rows."""
        ids, rows = ids.unique(), old.shape[1]
        ids = ids[(ids > PADDING) & (ids < rows)]
        return cls(ids, old.new_ones(len(ids)), old, [table[:rows] for table in current])

    def before_and_now(self) -> tuple[Tensor, Tensor]:
        """The vectors of the ids as means over layers, `(n, D)` each."""
        return self.old[:, self.ids].mean(dim=0), torch.stack([table[self.ids] for table in self.current]).mean(dim=0)


class Pairs(NamedTuple):
    """The neighbours of some entities, one entity after the other."""

    row: Tensor  # (P,) whose neighbour it is, a place among the entities
    neighbour: Tensor  # (P,) its id
    degree: Tensor  # (n,) how many each entity has

    @classmethod
    def of(cls, neighbours: Neighbours, ids: Tensor) -> Pairs:
        """Of the entities `ids (n,)`."""
        start = neighbours.starts[ids]
        degree = neighbours.starts[ids + 1] - start
        row = torch.arange(len(ids), device=ids.device).repeat_interleave(degree)
        at = torch.arange(len(row), device=ids.device) + (start - degree.cumsum(0) + degree)[row]
        return cls(row, neighbours.values[at], degree)


class NeighbourContrast(nn.Module):
    """One of the four contrasts; the graph is saved with the run.

    Args:
        neighbours: of each entity of the side that is asked, among the others.
        temperature: tau.
        max_entities: ask at most so many of a batch, drawn from those that have neighbours.
        candidates: this many, drawn anew for each batch, stand for all who are no neighbours; None asks everybody.
    """

    values: Tensor
    starts: Tensor

    def __init__(
        self, neighbours: Neighbours, temperature: float, max_entities: int | None = None, candidates: int | None = None
    ) -> None:
        super().__init__()
        self.register_buffer("values", neighbours.values)
        self.register_buffer("starts", neighbours.starts)
        self.temperature, self.max_entities, self.candidates = temperature, max_entities, candidates

    def forward(self, side: Side, others: Side) -> Tensor:
        """The weighed mean over the entities of a side, and over layers, `()`; who has no neighbour counts as 0."""
        connected = (self.starts[side.ids + 1] > self.starts[side.ids]).nonzero().squeeze(1)
        asked = connected if self.max_entities is None else _draw(connected, self.max_entities)
        pairs = Pairs.of(Neighbours(self.values, self.starts), side.ids[asked])
        everybody = torch.arange(1, others.old.shape[1], device=asked.device)
        drawn = None if self.candidates is None else _draw(everybody, self.candidates)
        losses = side.weights.new_zeros(len(asked))
        for old, current in zip(side.old[:, side.ids[asked]], others.current, strict=True):
            losses = losses + contrast(old / self.temperature, current, pairs, drawn) / len(side.old)
        scale = len(connected) / max(len(asked) * len(side.ids), 1)
        return (side.weights[asked] * losses).sum() * scale


def contrast(old: Tensor, current: Tensor, pairs: Pairs, drawn: Tensor | None = None) -> Tensor:
    """`-mean_{n in N(a)} log softmax_n(a . b_n)` of each old vector, `(n,)`; 0 for one without neighbours.

    Args:
        old: `(n, D)`, the vectors a, divided by the temperature; they get no gradient.
        current: `(N+1, D)`, the vectors b, row 0 padding.
        pairs: the neighbours of each.
        drawn: `(c,)` distinct ids of `1..N`, see `estimate`; without them all are in the softmax, in pieces.
    """
    dtype = torch.promote_types(current.dtype, torch.float32)
    old, current = old.detach().to(dtype), current.to(dtype)
    scores = (old.index_select(0, pairs.row) * current.index_select(0, pairs.neighbour)).sum(dim=1)  # (P,)
    mean = scores.new_zeros(len(old)).index_add(0, pairs.row, scores) / pairs.degree.clamp(min=1)
    if drawn is None:
        nobody = pairs.row.new_zeros(len(old), 0)
        total = log_sum_exp_without(old, current, nobody, chunk_size=CHUNK, keep_size=0)
    else:
        total = estimate(old, current, pairs, scores, drawn)
    return (total - mean) * (pairs.degree > 0)


def estimate(old: Tensor, current: Tensor, pairs: Pairs, scores: Tensor, drawn: Tensor) -> Tensor:
    """The log-sum-exp over all, `(n,)`: of neighbours exactly, of the others from those of them that were drawn.

    Each of these weighs (others) / (others drawn), so the sum is without bias, and its logarithm a little low (Jensen):
    by some `(e^(s^2) - 1) / 2c` where scores have the standard deviation s, 0.001 at s=1 and c=1024, 0.03 at s=2. With
    everybody drawn it is exact.

    Args:
        scores: `(P,)` of the pairs.
        drawn: `(c,)` distinct ids, uniform from `1..N`.
    """
    row, neighbour, degree = pairs
    column = torch.full((len(current),), -1, device=drawn.device)
    column[drawn] = torch.arange(len(drawn), device=drawn.device)
    column = column[neighbour]
    both = column >= 0  # neighbours who were drawn, too
    nothing = scores.new_full((), lowest(scores.dtype))
    logits = (old @ current.index_select(0, drawn).T).index_put((row[both], column[both]), nothing)  # (n, c)
    others, seen = len(current) - 1 - degree, len(drawn) - row[both].bincount(minlength=len(old))
    rest = logits.logsumexp(dim=1) + (others.to(scores.dtype) / seen.clamp(min=1)).log()

    highest = nothing.repeat(len(old)).scatter_reduce(0, row, scores.detach(), "amax")
    total = scores.new_zeros(len(old)).index_add(0, row, (scores - highest[row]).exp())
    near = highest + total.masked_fill(degree == 0, 1.0).log()
    return near.logaddexp(rest)


def _draw(ids: Tensor, most: int) -> Tensor:
    """At most so many of `ids (n,)`, without replacement."""
    return ids if len(ids) <= most else ids[torch.randperm(len(ids), device=ids.device)[:most]]

"""Pairs of query and item to rehearse: drawn from what proxies rank high and the student low (CCD, KDD'24).

The same item drawn from several proxies is one pair, with the highest label.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from ..errors import ConfigError, KnowledgeError
from ..functional.rank_sampling import by_weight, repeats
from ..knowledge import Knowledge
from ..method import Epoch
from .list_checks import require_unseen

logger = logging.getLogger(__name__)

ROWS = 2**12  # drawn at a time

Ranks = Callable[[Tensor, Tensor], Tensor]  # of rows (n,) and their items (n, c): where the student ranks these, (n, c)


@dataclass(frozen=True)
class ReplayedPairsConfig:
    """How pairs are drawn. Symbols as in CCD (arXiv 2405.19046)."""

    draws: int | dict[str, int] = 5  # n, items of each query from each proxy; or by proxy, where 0 leaves one out
    list_length: int = 100  # A, places of a proxy's list that can be drawn
    epsilon: float = 1e-4  # of the weights exp(epsilon (r_W - r_P))
    redraw: int = 5  # epochs between two drawings
    reference: str = "student"  # W: the student at each drawing; or at the "start", as in the release

    def __post_init__(self) -> None:
        if self.reference not in ("student", "start"):
            raise ConfigError(f"reference must be 'student' or 'start', got {self.reference!r}.")
        if self.list_length < 1 or self.redraw < 1:
            raise ConfigError(f"list_length={self.list_length} and redraw={self.redraw} must be at least 1.")
        if not 0 <= self.epsilon < float("inf"):
            raise ConfigError(f"epsilon must be a number from 0 on, got {self.epsilon}.")
        counts = list(self.draws.values()) if isinstance(self.draws, dict) else [self.draws]
        if any(not 0 <= count <= self.list_length for count in counts) or not any(counts):
            raise ConfigError(
                f"draws={self.draws} must lie in 0..list_length={self.list_length}, and be above 0 for at least one."
            )

    def draws_of(self, proxies: Mapping[str, Knowledge]) -> dict[str, int]:
        """How many items are drawn from each proxy; without those of which none is.

        Raises:
            ConfigError: `draws` names other proxies.
        """
        if not isinstance(self.draws, dict):
            return dict.fromkeys(proxies, self.draws)
        if self.draws.keys() != proxies.keys():
            raise ConfigError(
                f"draws names {sorted(self.draws)}, but the proxies are {sorted(proxies)}. Name each; 0 leaves one out."
            )
        return {name: count for name, count in self.draws.items() if count}


class Pairs(NamedTuple):
    """Of some rows: `items (n, K)`, 0 for an empty place, and how far each is a positive, `labels (n, K)` in 0..1."""

    items: Tensor
    labels: Tensor


class ReplayedPairs(nn.Module):
    """Pairs for R rows, 8 bytes each, saved with the run: resumed in mid-epoch, it asks no later student.

    With `reference="start"` also the student's ranks at the start are saved, R x A int32 for each proxy.

    Args:
        queries: `(R,)`, rows of the proxies' tables.

    Raises:
        KnowledgeError: the lists hold what users have.
    """

    items: Tensor  # (R, K) int32
    labels: Tensor  # (R, K) float32
    start: Tensor  # (R, sum of A) int32, r_W at the start; empty where it is not kept
    made: Tensor  # () in which period, -1 for none

    def __init__(self, config: ReplayedPairsConfig, knowledge: Mapping[str, Knowledge], queries: Tensor) -> None:
        super().__init__()
        require_unseen(knowledge)
        self.config, self.queries, self.ready = config, queries, False
        draws = config.draws_of(knowledge)
        self.proxies = {name: knowledge[name] for name in draws}
        self.lengths = [min(config.list_length, said.tables["query_topk"].shape[1]) for said in self.proxies.values()]
        self.draws = [min(count, length) for count, length in zip(draws.values(), self.lengths, strict=True)]
        for (name, said), length in zip(self.proxies.items(), self.lengths, strict=True):
            if length < min(config.list_length, len(said.catalogue)):
                logger.warning(
                    "%s lists %d items, fewer than list_length=%d. Export longer lists, or set list_length.",
                    name, length, config.list_length,
                )  # fmt: skip
        width, kept = sum(self.draws), sum(self.lengths) if config.reference == "start" else 0
        self.register_buffer("items", torch.zeros(len(queries), width, dtype=torch.int32))
        self.register_buffer("labels", torch.zeros(len(queries), width))
        self.register_buffer("start", torch.zeros(len(queries), kept, dtype=torch.int32))
        self.register_buffer("made", torch.tensor(-1))

    def draw(self, epoch: Epoch, look: Callable[[], Ranks]) -> None:
        """Draw anew if it is time to; `look` then makes ready to tell the student's ranks of items."""
        self.ready, period = True, epoch.number // self.config.redraw
        made = int(self.made)
        if made == period:
            return
        looks = made < 0 or self.config.reference == "student"
        ranks_of = look() if looks else lambda rows, _: self.start[rows]
        for rows in torch.arange(len(self.queries)).split(ROWS):
            lists, scores = self._read(rows)
            ranks = ranks_of(rows, lists).cpu()
            if self.start.shape[1]:
                self.start[rows] = ranks.to(self.start)
            pairs = self._draw(lists, scores, ranks, epoch.generator)
            self.items[rows], self.labels[rows] = pairs.items.to(self.items), pairs.labels.to(self.labels)
        self.made.fill_(period)

    def _read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The proxies' lists side by side, `(n, sum of A)` items and scores; on the CPU."""
        queries, parts = self.queries[rows], []
        for said, length in zip(self.proxies.values(), self.lengths, strict=True):
            parts.append([said.rows(table, queries)[:, :length] for table in ("query_topk", "query_scores")])
        return torch.cat([part[0] for part in parts], dim=1), torch.cat([part[1].float() for part in parts], dim=1)

    def _draw(self, lists: Tensor, scores: Tensor, ranks: Tensor, generator: Generator) -> Pairs:
        drawn = []
        columns = (tensor.split(self.lengths, dim=1) for tensor in (lists, scores, ranks))
        for count, items, said, student in zip(self.draws, *columns, strict=True):
            places = by_weight(items, log_weights(student, self.config.epsilon), count, generator)
            drawn.append(Pairs(items.gather(1, places), said.gather(1, places).sigmoid()))
        return merged(Pairs(*(torch.cat(column, dim=1) for column in zip(*drawn, strict=True))))

    def of(self, rows: Tensor) -> Pairs:
        """The pairs of some rows `(n,)`.

        Raises:
            ConfigError: nothing is drawn yet.
        """
        if not self.ready:
            raise ConfigError(
                "no pairs are drawn yet. Train with DistillationTrainer, or in a loop of your own call "
                "method.on_epoch_begin(Epoch(...)) when an epoch begins."
            )
        return Pairs(self.items[rows].long(), self.labels[rows])

    def per_row(self) -> float:
        """How many pairs a row has in the mean.

        Raises:
            KnowledgeError: there are none at all.
        """
        pairs = int((self.items != 0).sum())
        if not pairs:
            raise KnowledgeError(
                f"the lists of {[*self.proxies]} are empty for all that is rehearsed. Export them on the rows that are."
            )
        return pairs / len(self.items)


def log_weights(ranks: Tensor, epsilon: float) -> Tensor:
    """`epsilon (r_W - r_P)`, `(n, A)`: `ranks` are the student's of a proxy's list, whose places are its own."""
    return epsilon * (ranks - torch.arange(ranks.shape[1], device=ranks.device)).float()


def merged(pairs: Pairs) -> Pairs:
    """Each item of a row once, with the highest of its labels."""
    same = pairs.items[:, :, None] == pairs.items[:, None, :]
    labels = pairs.labels[:, None, :].masked_fill(~same, 0.0).amax(dim=2)
    return Pairs(pairs.items.masked_fill(repeats(pairs.items), 0), labels)

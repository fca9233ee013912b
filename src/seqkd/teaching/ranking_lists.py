"""Interesting and uninteresting lists of all rows, drawn from the teachers' rankings when an epoch begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from ..errors import ConfigError
from ..functional.rank_sampling import by_position, uniform_outside
from ..functional.relaxed_ranking import relaxed_ranking
from ..knowledge import Knowledge
from ..knowledge.store.table import Table
from ..method import Epoch
from .list_checks import require_training_queries, require_unseen

ROWS = 2**14  # lists read at a time


@dataclass(frozen=True)
class RankingListsConfig:
    """How lists are drawn. Symbols as in RRD (arXiv 2012.04357)."""

    interesting: int = 40  # K
    uninteresting: int = 40  # L
    sampling: str = "top"  # the K best (the authors' later finding), or K drawn by "position", as in the paper
    temperature: float = 10.0  # T, of the position weights exp(-(r + 1) / T)
    list_length: int = 500  # places of the teacher's list that are read; what stands there is never uninteresting
    refresh: int = 1  # epochs between two drawings
    # Distinct queries of a batch that are taught, at most so many, drawn; None takes all. Unbiased. A user comes as
    # often in an epoch as they have items, so that of half or a quarter most are still taught once or more.
    max_queries: int | None = None
    # Put what a row has before the teacher's list, as CCD's release does, where NaN stands for it and sorts first: few
    # of the K places are then left for what the teacher says.
    observed_first: bool = False

    def __post_init__(self) -> None:
        if self.sampling not in ("top", "position"):
            raise ConfigError(f"sampling must be 'top' or 'position', got {self.sampling!r}.")
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be above 0, got {self.temperature}.")
        if self.max_queries is not None and self.max_queries < 1:
            raise ConfigError(f"max_queries must be at least 1, got {self.max_queries}.")
        for name in ("interesting", "uninteresting", "list_length", "refresh"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.interesting > self.list_length:
            raise ConfigError(
                f"interesting={self.interesting} of a list of list_length={self.list_length} places; make it longer."
            )


class Lists(NamedTuple):
    """Of some rows: `interesting (n, K)` in the teacher's order, `uninteresting (n, L)`; int64, 0 is an empty place."""

    interesting: Tensor
    uninteresting: Tensor

    @property
    def both(self) -> Tensor:
        return torch.cat(self, dim=1)


class RankingLists(nn.Module):
    """Lists of all rows for every teacher, N (K+L) int32 each, on the device of the module.

    They depend on the seed of the epoch in which they were drawn and on the knowledge. Only that seed is saved: a run
    that is resumed between two drawings draws them again.

    Args:
        table: of each teacher's knowledge, its ranking for every row, `(N, M)`, best first.
        num_entities: what is ranked: 1..num_entities.

    Raises:
        KnowledgeError: the lists hold what users have.
    """

    seed: Tensor

    def __init__(
        self, config: RankingListsConfig, knowledge: Mapping[str, Knowledge], table: str, num_entities: int
    ) -> None:
        super().__init__()
        require_unseen(knowledge)
        self.config, self.num_entities, self.of_queries = config, num_entities, table.startswith("query_")
        self.rankings = {teacher: said.tables[table] for teacher, said in knowledge.items()}
        self.drawn: dict[str, Lists] = {}
        self.register_buffer("seed", torch.tensor(-1))

    def draw(self, epoch: Epoch, taken: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Draw anew when it is time to; `taken` tells what is never uninteresting, see `uniform_outside`.

        Raises:
            KnowledgeError: the training part asks other queries than the teachers answer.
        """
        if self.of_queries:
            require_training_queries({name: len(table) for name, table in self.rankings.items()}, epoch.positives)
        if epoch.number % self.config.refresh == 0 or self.seed < 0:
            self.seed.fill_(epoch.generator.initial_seed())
        elif self.drawn:
            return
        generator = Generator().manual_seed(int(self.seed))
        for teacher, table in self.rankings.items():
            chunks = torch.arange(len(table)).split(ROWS)
            parts = [self._draw(self._read(table, rows, epoch), rows, taken, generator) for rows in chunks]
            self.drawn[teacher] = Lists(*(torch.cat(part).to(self.seed.device) for part in zip(*parts, strict=True)))

    def _read(self, table: Table, rows: Tensor, epoch: Epoch) -> Tensor:
        """The lists of some rows, `(n, <= list_length)`."""
        lists = table[rows][:, : self.config.list_length]
        if not self.config.observed_first:
            return lists
        positives = epoch.positives
        observed = positives.items_of_queries(rows) if self.of_queries else positives.users_of_items(rows)
        both = torch.cat([observed.to(lists), lists], dim=1)
        order = (both == 0).int().argsort(dim=1, stable=True)  # empty places last
        return both.gather(1, order)[:, : lists.shape[1]]

    def _draw(self, lists: Tensor, rows: Tensor, taken: Callable[[Tensor, Tensor], Tensor], generator: Generator):
        config = self.config
        size = min(config.interesting, lists.shape[1])
        if config.sampling == "top":
            interesting = lists[:, :size].clone()
        else:
            interesting = by_position(lists, size, config.temperature, generator)
        rest = uniform_outside(rows, lists, config.uninteresting, self.num_entities, taken, generator)
        return interesting, rest

    def of(self, teacher: str, rows: Tensor) -> Lists:
        """The lists of some rows `(n,)`.

        Raises:
            ConfigError: nothing is drawn yet.
        """
        if teacher not in self.drawn:
            raise ConfigError(
                "no lists are drawn yet. Train with DistillationTrainer, or in a loop of your own call "
                "method.on_epoch_begin(Epoch(number, num_epochs, generator, positives)) when an epoch begins."
            )
        return Lists(*(lists.index_select(0, rows).long() for lists in self.drawn[teacher]))


def relaxed_ranking_of(scores: Tensor, lists: Lists) -> Tensor:
    """The relaxed ranking loss of lists, `(n,)`, by the student's `scores (n, K+L)` of `lists.both`."""
    interesting, uninteresting = scores.split([part.shape[1] for part in lists], dim=1)
    empty = {"empty_interesting": lists.interesting == 0, "empty_uninteresting": lists.uninteresting == 0}
    return relaxed_ranking(interesting, uninteresting, **empty)

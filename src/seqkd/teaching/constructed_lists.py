"""The lists that every query learns from while it moves through the training of its teachers, and how far it has come.

What HetComp (WWW'23) keeps between two updates, around the functions of `knowledge_construction`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..errors import ConfigError, KnowledgeError
from ..functional.knowledge_construction import advance, merge
from ..knowledge import Knowledge
from ..method import Epoch
from .list_checks import require_training_items, require_training_queries, require_unseen


@dataclass(frozen=True)
class ConstructedListsConfig:
    """Symbols as in the paper."""

    top: int = 100  # K, unobserved items of the consensus
    observed: int = 10  # observed items of the consensus
    importance: float = 10.0  # ranks by which importance falls to 1/e; of the gains of the discrepancy, too
    consensus: str = "exponential"  # how importance falls; or "power", CCD's law, by which all places of a list count
    curriculum: bool = True  # False: the converged teachers from the start
    interval: int = 10  # p, epochs between two updates
    depth: int = 50  # places of the student's and a teacher's list that are compared
    alpha: float = 1.05  # a query moves on when its discrepancy has fallen by alpha decay^(epoch / p)
    decay: float = 0.995
    release: str = "final"  # of the authors' code; in the "submission", who falls behind a checkpoint does not move on
    graded: bool = False  # the standard NDCG; both releases grade a hit by the student's place, not the teacher's

    def __post_init__(self) -> None:
        for name in ("top", "observed", "interval", "depth"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("importance", "alpha", "decay"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}.")
        if self.consensus not in ("exponential", "power"):
            raise ConfigError(f"consensus must be 'exponential' or 'power', got {self.consensus!r}.")
        if self.release not in ("final", "submission"):
            raise ConfigError(f"release must be 'final' or 'submission', got {self.release!r}.")


class ConstructedLists(nn.Module):
    """State and lists of all queries. The lists follow from the state: only that is saved, a resumed run merges again.

    Args:
        knowledge: checkpoints called e.g. `gnn@0` to `gnn@3`, each with `query_topk` and `query_seen_topk`.

    Raises:
        KnowledgeError: the checkpoints are not numbered so, answer different queries, or list what users have.
    """

    selection: Tensor  # (T, N) int8, v: the checkpoint that each query learns from
    reference: Tensor  # (T, N) float64, its discrepancy to the next one when it was selected
    updated: Tensor  # () the epoch of the last update, -1 before the first
    top: Tensor  # (N, K) int32, consensus of what is selected, best first, 0 fills up
    observed: Tensor  # (N, observed) int32, consensus of the converged teachers on what the history holds

    def __init__(self, config: ConstructedListsConfig, knowledge: Mapping[str, Knowledge]) -> None:
        super().__init__()
        self.config, groups = config, checkpoints_of(knowledge, numbered=config.curriculum)
        self.answered = {name: said.num_queries for name, said in knowledge.items()}
        self.teachers = [[partial(said.rows, "query_topk") for said in group] for group in groups]
        self.last = torch.tensor([[len(group) - 1] for group in groups], dtype=torch.int8)  # (T, 1)
        seen = [[partial(group[-1].rows, "query_seen_topk")] for group in groups]
        shape = (len(groups), groups[0][0].num_queries)
        start = torch.zeros(shape, dtype=torch.int8)
        self._merge = partial(merge, scale=config.importance, law=config.consensus)
        observed = self._merge(seen, start, config.observed)
        self.register_buffer("selection", start if config.curriculum else start + self.last)
        self.register_buffer("reference", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("updated", torch.tensor(-1))
        self.register_buffer("observed", observed, persistent=False)
        self.register_buffer("top", torch.zeros(shape[1], config.top, dtype=torch.int32), persistent=False)
        self._merged: Tensor | None = None  # the selection of which `top` is the consensus

    def begin(self, epoch: Epoch) -> None:
        """Update the selection when it is time to, once in an epoch, and merge what is selected.

        Raises:
            KnowledgeError: the teachers were asked about another training part.
        """
        if self._merged is None:
            require_training_queries(self.answered, epoch.positives)
            require_training_items(self.observed.cpu(), epoch.positives)
        due = epoch.number > 0 and epoch.number % self.config.interval == 0 and int(self.updated) != epoch.number
        if due and (self.selection.cpu() < self.last).any():
            self._advance(epoch.number, epoch.student_topk(self.config.depth))
        selection = self.selection.cpu()
        if self._merged is None or not torch.equal(self._merged, selection):
            top = self._merge(self.teachers, selection, self.config.top)
            self._merged, self.top = selection.clone(), top.to(self.selection.device)

    def _advance(self, number: int, student_topk: Tensor) -> None:
        config, first = self.config, int(self.updated) < 0
        for at, checkpoints in enumerate(self.teachers):
            self.selection[at], self.reference[at] = advance(
                student_topk,
                checkpoints,
                self.selection[at].cpu(),
                None if first else self.reference[at].cpu(),
                threshold=config.alpha * config.decay ** (number // config.interval),
                behind=config.release == "final",
                scale=config.importance,
                graded=config.graded,
            )
        self.updated.fill_(number)

    @property
    def arrived(self) -> bool:
        """Whether every teacher's mean checkpoint is the last, to two decimals: one query in 200 may lag."""
        mean = self.selection.cpu().double().mean(dim=1).round(decimals=2)
        return bool((mean >= self.last.squeeze(1)).all())

    def progress(self, query_ids: Tensor) -> Tensor:
        """How far queries `(n,)` have come, the mean over teachers, `(n,)`, 1 at the last checkpoints."""
        return (self.selection[:, query_ids] / self.last.to(query_ids.device).clamp(min=1)).mean(dim=0)


def checkpoints_of(knowledge: Mapping[str, Knowledge], *, numbered: bool) -> list[list[Knowledge]]:
    """The checkpoints of each teacher in the order of its training, from names like `gnn@2`.

    Args:
        numbered: there is a curriculum, so every teacher needs two checkpoints or more; else a name alone will do.

    Raises:
        KnowledgeError: a name has no number, numbers have gaps, there is but one, teachers answer different queries, or
            their lists hold what the query's history does.
    """
    require_unseen(knowledge)
    found: dict[str, dict[int, Knowledge]] = {}
    for name, said in knowledge.items():
        teacher, _, number = name.rpartition("@")
        if not (teacher and number.isdecimal()):
            if numbered:
                raise KnowledgeError(
                    f"{name!r} names no checkpoint. Call the moments of a teacher's training e.g. 'gnn@0' to 'gnn@3', "
                    "the converged model last, or set curriculum=False."
                )
            teacher, number = name, "0"
        found.setdefault(teacher, {})[int(number)] = said
    for teacher, moments in found.items():
        if sorted(moments) != [*range(len(moments))] or (numbered and len(moments) < 2):
            raise KnowledgeError(
                f"teacher {teacher!r} has the checkpoints {sorted(moments)}. They must be numbered from 0 without "
                "gaps, two at least (set curriculum=False to learn from converged teachers alone)."
            )
    sizes = {name: said.num_queries for name, said in knowledge.items()}
    if len(set(sizes.values())) > 1:
        raise KnowledgeError(f"teachers must answer the same queries, but their rows are {sizes}.")
    return [[moments[number] for number in sorted(moments)] for moments in found.values()]

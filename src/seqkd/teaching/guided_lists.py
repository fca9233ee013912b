"""Lists of all rows that are drawn from a teacher's ranking and the student's own, when an epoch begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from ..errors import ConfigError, KnowledgeError
from ..knowledge import Knowledge
from ..method import Epoch
from .list_checks import require_training_queries, require_unseen

ROWS = 2**12  # drawn at a time


class Rankings(NamedTuple):
    """How a student and a teacher rank, for some queries; on the CPU, best first, item 0 is an empty place."""

    student: Tensor  # (n, length) int32, without what the query's history holds
    teacher: Tensor  # (n, M) int32, exported with filter_seen=True
    scores: Tensor  # (n, M) of the teacher


Rule = Callable[[Rankings, Generator], tuple[Tensor, ...]]  # draws some tensors `(n, ...)`


class GuidedLists(nn.Module):
    """Lists for every query and teacher, drawn anew in each epoch, on the device of the module.

    The student's ranking that guides them, N x length int32, is saved with the run: resumed in mid-epoch, it draws the
    same lists from it again and asks no later student.

    Args:
        length: places of the student's ranking; at most `num_items`, and with 0 it is not asked.
        refresh: epochs for which that ranking is kept.

    Raises:
        KnowledgeError: the teachers answer different queries, or list what users have.
    """

    student_top: Tensor  # (N, length)
    made: Tensor  # () in which period, -1 for none

    def __init__(self, knowledge: Mapping[str, Knowledge], num_items: int, length: int, refresh: int) -> None:
        super().__init__()
        require_unseen(knowledge)
        rows = {teacher: said.num_queries for teacher, said in knowledge.items()}
        if len(set(rows.values())) != 1:
            raise KnowledgeError(f"all teachers must answer the same queries, but their rows are {rows}.")
        self.knowledge, self.refresh = dict(knowledge), refresh
        self.drawn: dict[str, tuple[Tensor, ...]] = {}
        self.register_buffer("student_top", torch.zeros(max(rows.values()), min(length, num_items), dtype=torch.int32))
        self.register_buffer("made", torch.tensor(-1))

    def draw(self, epoch: Epoch, rule: Rule) -> None:
        """Ask the student if it is time to, and draw by `rule`.

        Raises:
            KnowledgeError: the student is trained on other queries than the teachers answer.
        """
        require_training_queries({name: said.num_queries for name, said in self.knowledge.items()}, epoch.positives)
        if self.student_top.shape[1] and int(self.made) != epoch.number // self.refresh:
            ranking = epoch.student_topk(self.student_top.shape[1])
            self.student_top.copy_(ranking)
            self.made.fill_(epoch.number // self.refresh)
        student = self.student_top.cpu()
        for teacher, said in self.knowledge.items():
            parts = []
            for rows in torch.arange(len(student)).split(ROWS):
                taught = (said.rows(table, rows) for table in ("query_topk", "query_scores"))
                parts.append(rule(Rankings(student[rows], *taught), epoch.generator))
            self.drawn[teacher] = tuple(torch.cat(part).to(self.made.device) for part in zip(*parts, strict=True))

    def of(self, teacher: str, rows: Tensor) -> tuple[Tensor, ...]:
        """What was drawn for some rows `(n,)`, in the order of the rule.

        Raises:
            ConfigError: nothing is drawn yet.
        """
        if teacher not in self.drawn:
            raise ConfigError(
                "no lists are drawn yet. Train with DistillationTrainer, or in a loop of your own call "
                "method.on_epoch_begin(Epoch(number, num_epochs, generator, positives, student_topk)) when an epoch "
                "begins."
            )
        return tuple(column[rows] for column in self.drawn[teacher])

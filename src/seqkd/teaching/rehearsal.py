"""Rows that a student is asked again beside its training, a part of them in every step."""

from __future__ import annotations

import torch
from torch import Tensor

from ..batches.collators import Sequence, SequenceDataset, require_sequences
from ..errors import ConfigError, DataError
from ..functional.score_ranks import ranks_by_score
from ..method import Epoch
from ..recommenders.catalogue_scores import catalogue_scores
from ..recommenders.recommender import RecommenderModel
from ..recommenders.user_recommender import UserRecommender

ASKED = 512  # rows at a time


class Rehearsal:
    """The tail queries of some rows: what does this user want after all of this?

    A student that holds a vector for each user (MF, CML, LightGCN) is asked by user id, and reads the tables of the
    step; any other answers from the row's history.

    Args:
        rows: with the user ids of the student where it knows users.

    Raises:
        ConfigError: users are numbered otherwise than in the student. DataError: a row has nothing to answer from.
    """

    def __init__(self, student: RecommenderModel, rows: SequenceDataset) -> None:
        require_sequences(rows)
        _require_known(student, rows)
        self.student = student
        self.rows = [
            Sequence(row.item_ids, len(row.item_ids), row.query_start + len(row.item_ids) - row.first_target, row.user)
            for row in rows
        ]
        self.query_ids = torch.tensor([row.query_start for row in self.rows], dtype=torch.int64)  # (R,)
        self.user_ids = torch.tensor([row.user for row in self.rows], dtype=torch.int64)  # (R,)
        self.by_user = _has_user_vectors(student)
        self.collator = student.collator(tail=True)
        self.order = torch.arange(len(self.rows))
        self.num_steps, self.total_steps = 1, 1.0

    def __len__(self) -> int:
        return len(self.rows)

    def begin(self, epoch: Epoch) -> None:
        """Shuffle the rows."""
        device = self.student.device
        self.order = torch.randperm(len(self), generator=epoch.generator).to(device)
        self.user_ids = self.user_ids.to(device)
        self.num_steps, self.total_steps = epoch.num_steps, epoch.num_epochs * epoch.num_steps

    def window(self, progress: Tensor) -> Tensor:
        """The rows of a step, `(n,)`: an epoch rehearses each, and at its end begins anew to fill the last steps.

        Args:
            progress: `()`, share of all steps that are done, the same in all that carry a step: and so are its rows.
        """
        size = -(-len(self) // self.num_steps)
        step = (progress * self.total_steps).round().long() % self.num_steps
        return self.order[(step * size + torch.arange(size, device=self.order.device)) % len(self)]

    def ask(self, rows: Tensor) -> Tensor:
        """Query embeddings of some rows `(n,)`, `(n, D)`, with gradient."""
        if self.by_user and isinstance(self.student, UserRecommender):
            return self.student.user_embeddings(self.user_ids[rows])
        batch = self.collator([self.rows[row] for row in rows.tolist()])
        inputs = {name: batch[name].to(self.student.device) for name in self.student.inputs}
        return self.student(**inputs).query_embeddings

    @torch.no_grad()
    def ranks(self, rows: Tensor, items: Tensor) -> Tensor:
        """Where the student, as it is, ranks items `(n, c)` among the whole catalogue for rows `(n,)`, `(n, c)`."""
        training, device, parts = self.student.training, self.student.device, []
        self.student.eval()
        try:
            for some, listed in zip(rows.split(ASKED), items.split(ASKED), strict=True):
                for part, scores in catalogue_scores(self.student, self.ask(some.to(device))):
                    parts.append(ranks_by_score(scores, listed[part].to(device)))
        finally:
            self.student.train(training)
        return torch.cat(parts)


def _require_known(student: RecommenderModel, rows: SequenceDataset) -> None:
    if isinstance(student, UserRecommender):
        if student.users is None or rows.users != student.users or not rows.user.all():
            raise ConfigError(
                f"{type(student).__name__} and the rows to rehearse do not number users alike. Call "
                "model.set_users(split.users), and give the rows the same: "
                "SequenceDataset(rows, num_items, users=split.users)."
            )
        return
    for at, row in enumerate(rows):
        if not len(row.item_ids):
            raise DataError(
                f"row {at} of what is to be rehearsed is empty, and {type(student).__name__} answers from histories. "
                "Leave it out, here and in what the proxies were asked."
            )


def _has_user_vectors(student: RecommenderModel) -> bool:
    if not isinstance(student, UserRecommender):
        return False
    try:
        with torch.no_grad():
            student.user_embeddings(torch.ones(1, dtype=torch.int64, device=student.device))
    except ConfigError:  # it reads histories, too
        return False
    return True

"""Recommenders that know their users: trained on pairs of user and item, asked by user id."""

from __future__ import annotations

import os
from collections.abc import Sequence as List
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..batches.collators import Collator, Sequence, SequenceDataset
from ..batches.history_collator import HistoryCollator
from ..batches.pairs import PairCollator, TrainingPairs
from ..catalogue import PADDING, Catalogue
from ..errors import ConfigError, DataError
from ..functional import losses
from ..functional.candidate_scores import candidate_scores
from ..modules.embedding_tables import add_rows
from .checkpointed_model import ids_beside
from .recommender import UNLABELLED, Recommendations, RecommenderModel, RecommenderOutput, extended
from .user_configuration import UserRecommenderConfig

FILE_NAME = "user_ids.json"
SAMPLED = ("bpr", "bce", "gbce", "hinge")  # losses with negatives for each pair


class UserRecommender(RecommenderModel):
    """Base of models with a user table. A subclass writes `forward(user_ids)` and `item_embeddings`.

    Class attributes:
        unknown_users: whether it can answer for a user who is not in training, from the history alone.
        holds_item_table: `item_embeddings()` costs nothing, so that candidates are read from it.
        history_window: newest items of a history that `forward` reads as `histories (Q, n)`; 0 reads none.
    """

    config: UserRecommenderConfig
    main_input_name = "user_ids"
    inputs: tuple[str, ...] = ("user_ids",)
    unknown_users: bool = False
    holds_item_table: bool = False
    history_window: int = 0
    shared_space = True
    user_embedding: nn.Embedding  # or else `user_tables` is written

    def set_users(self, users: Catalogue) -> None:
        """Attach the external user ids, `split.users`; they are saved with the model."""
        if len(users) != self.config.num_users:
            raise ConfigError(
                f"there are {len(users)} users, but the model was configured with num_users={self.config.num_users}. "
                f"Build the model with num_users={len(users)}, or grow it with add_users."
            )
        self.users = users

    @property
    def user_tables(self) -> List[nn.Module]:
        """`add_users` takes rows of the first."""
        return [self.user_embedding]

    @torch.no_grad()
    def add_users(self, user_ids: List[str], embeddings: Tensor | None = None) -> None:
        """Grow by users, as `add_items` grows by items: old rows stay bit-equal, what is not given is their mean.

        Args:
            user_ids: external ids, in the order of the new rows.
            embeddings: `(n, D)` rows of the first of `user_tables`.

        Raises:
            DataError: a user is known already or comes twice, or `embeddings` has another shape or is not finite.
            ConfigError: the model was told no users yet, or `embeddings` are given, but it has no row for a user.
        """
        if self.users is None:
            raise ConfigError("this model knows no users yet. Call model.set_users(split.users) first.")
        self._check_rows("user", embeddings, len(user_ids), self.user_tables)
        self.users = extended(self.users, user_ids, "already among the users", "user")
        self.config.num_users += len(user_ids)
        add_rows(self.user_tables, len(user_ids), embeddings)
        self._forget()

    def user_embeddings(self, user_ids: Tensor) -> Tensor:
        """`(n, D)` of users `(n,)`, comparable with items: what `forward` says where the id is all that it reads.

        Raises:
            ConfigError: the model reads histories, too, so that a user alone has no embedding.
        """
        if self.inputs != ("user_ids",):
            raise ConfigError(
                f"{type(self).__name__} reads {self.inputs}, so users alone have no embeddings. Use MF or LightGCN."
            )
        return self(user_ids=user_ids).query_embeddings

    def training_rows(self, sequences: SequenceDataset) -> Dataset:
        """Pairs of user and item.

        Raises:
            ConfigError: users are numbered otherwise than in this model, one of them is unknown, or a history is cut:
                what its later rows leave out would be trained on, but neither masked nor filtered.
        """
        if self.users is None or sequences.users != self.users or not sequences.user.all():
            raise ConfigError(
                f"{type(self).__name__} and these rows do not number users alike. Call model.set_users(split.users), "
                "and give the rows the same: SequenceDataset(rows, num_items, users=split.users)."
            )
        if (sequences.owner[1:] == sequences.owner[:-1]).any():
            raise ConfigError(
                "the history of a user is cut into several rows, so that older items would neither be masked nor "
                "filtered. Split with a max_length of the longest history, or with queries='users'."
            )
        return TrainingPairs(sequences)

    def collator(self, *, tail: bool = False, seen: bool = False, training: bool = False) -> Collator:
        if training:
            negatives = self.config.num_negatives if self.config.loss_type in SAMPLED else 0
            return PairCollator(num_negatives=negatives, window=self.history_window)
        return HistoryCollator(
            self.history_window or self.config.max_position_embeddings,
            tail=tail,
            seen=seen,
            known_users=not self.unknown_users,
        )

    def score(self, query_embeddings: Tensor, item_ids: Tensor | None = None) -> Tensor:
        """As of every recommender."""
        if item_ids is None or item_ids.dim() == 1 or not self.holds_item_table:
            return super().score(query_embeddings, item_ids)
        return candidate_scores(query_embeddings / self.config.temperature, self.item_embeddings(), item_ids)

    def loss(self, query_embeddings: Tensor, targets: Tensor, negatives: Tensor | None = None) -> Tensor:
        """As of every recommender, `(Q,)`, with the negatives `(Q, N)` that the pairs bring."""
        config = self.config
        if negatives is None or config.loss_type not in SAMPLED:
            return super().loss(query_embeddings, targets)
        logits = self.score(query_embeddings, torch.cat([targets[:, None], negatives], dim=1))  # (Q, 1+N)
        if config.loss_type == "bpr":
            return losses.bpr(logits[:, 0], logits[:, 1:])
        if config.loss_type == "gbce":
            return losses.gbce(logits[:, 0], logits[:, 1:], num_items=config.num_items, t=config.gbce_t)
        return losses.bce(logits[:, 0], logits[:, 1:])

    def training_loss(
        self,
        output: RecommenderOutput,
        targets: Tensor,
        step_targets: Tensor | None = None,
        negatives: Tensor | None = None,
    ) -> Tensor:
        """The loss of each pair, `(Q,)`; `negatives (Q, N)` of `PairCollator`."""
        labelled = targets != UNLABELLED
        drawn = None if negatives is None else negatives[labelled]
        loss = self.loss(output.query_embeddings[labelled], targets[labelled], drawn)
        return torch.zeros(len(targets), dtype=loss.dtype, device=loss.device).masked_scatter(labelled, loss)

    # ---- external ids -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def recommend(  # type: ignore[override]
        self,
        histories: List[List[str]],
        k: int = 10,
        *,
        users: List[str] | None = None,
        filter_seen: bool = True,
        batch_size: int = 1024,
    ) -> Recommendations:
        """The k best items for each user, in external ids.

        Args:
            histories: what each has already, oldest first, to be filtered; models that read histories read it, too.
            users: external user ids, one for each history.

        Raises:
            DataError: a user is unknown (or none is given) and the model answers for known users only; or `users` is a
                bare string.
        """
        if users is not None and self.users is None:
            raise ConfigError("users are given, but this model knows none. Call model.set_users(split.users) first.")
        if isinstance(users, str):
            raise DataError(f"users must be a list of user ids, one for each history, e.g. users=[{users!r}].")
        if users is not None and len(users) != len(histories):
            raise DataError(f"{len(users)} users for {len(histories)} histories. Give one user for each history.")
        known = Catalogue([]) if self.users is None else self.users
        rows = np.zeros(len(histories), dtype=np.int64) if users is None else known.encode(users)
        if not self.unknown_users and (rows == PADDING).any():
            at = int(np.flatnonzero(rows == PADDING)[0])
            who = "no user is given" if users is None else f"user {users[at]!r} is unknown"
            raise DataError(
                f"{type(self).__name__} recommends to the {len(known)} users it was trained on, but {who} "
                f"(history {at}). Give users=[...] of training, or use a model that reads histories (SASRec, FM)."
            )
        return self._answer(self._sequences(histories, rows), k, filter_seen, batch_size)

    def _can_answer(self, sequence: Sequence) -> bool:
        return sequence.user != PADDING or (self.unknown_users and len(sequence.item_ids) > 0)

    # ---- files ------------------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:  # type: ignore[override]
        """As of every recommender, with `user_ids.json` beside it."""
        super().save_pretrained(save_directory, **kwargs)
        if self.users is not None and kwargs.get("is_main_process", True):
            self.users.save(save_directory, FILE_NAME)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """As of every recommender.

        Raises:
            CheckpointError: also where the list of users has another length than the user table.
        """
        name = pretrained_model_name_or_path
        loaded: Any = super().from_pretrained(name, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.users = ids_beside(name, FILE_NAME, "users", model.config.num_users, kwargs)
        return loaded

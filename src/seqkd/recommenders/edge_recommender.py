"""Recommenders that hold the interactions they are trained on: a graph (LightGCN), or what an autoencoder reads."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ..batches.collators import Collator
from ..batches.edges import Neighbours, distinct_edges
from ..batches.pairs import ChosenPairs, PairCollator
from ..errors import ConfigError
from .edge_configuration import EdgeRecommenderConfig
from .user_recommender import UserRecommender


class EdgeRecommender(UserRecommender):
    """The interactions of training, `Model(config, edges_of(train))`, are a buffer and so are saved with the model.

    Without `edges` the model waits for `set_edges` or, with `config.num_edges`, for the tensors of a checkpoint.
    """

    config: EdgeRecommenderConfig
    inputs: tuple[str, ...] = ("user_ids", "histories")
    edges: Tensor

    def __init__(self, config: EdgeRecommenderConfig) -> None:
        super().__init__(config)
        self.register_buffer("edges", torch.zeros(2, config.num_edges, dtype=torch.int32))
        self._lists: tuple[Tensor, tuple, Neighbours, Neighbours] | None = None  # of these edges

    def set_edges(self, edges: Tensor) -> None:
        """Set the interactions: `edges (2, E)`, internal ids of users and of the items each has; repeats count once.

        Raises:
            DataError: another shape, no pair at all, or an id outside `1..U` or `1..I`.
        """
        self.edges = distinct_edges(edges, self.config.num_users, self.config.num_items).to(self.edges.device)
        self.config.num_edges = self.edges.shape[1]

    def check_edges(self) -> None:
        """Raises:
        ConfigError: there are none yet.
        """
        if not self.edges.any():
            raise ConfigError("this model has no graph yet. Call set_edges(edges_of(train)) first.")

    def items_of(self, user_ids: Tensor) -> Tensor:
        """What users `(n,)` have, `(n, M)` internal ids in ascending order, 0 padded; user 0 has nothing."""
        return self._neighbours()[0].lists(user_ids)

    def users_of(self, item_ids: Tensor) -> Tensor:
        """Who has the items `(n,)`: `(n, M)` internal ids in ascending order, 0 padded."""
        return self._neighbours()[1].lists(item_ids)

    def _neighbours(self) -> tuple[Neighbours, Neighbours]:
        state = (self.edges._version, self.config.num_users, self.config.num_items)
        if self._lists is None or self._lists[0] is not self.edges or self._lists[1] != state:
            self.check_edges()
            users, items = self.edges
            both = Neighbours.of(users, items, state[1]), Neighbours.of(items, users, state[2])
            self._lists = (self.edges, state, *both)
        return self._lists[2:]

    def collator(self, *, tail: bool = False, seen: bool = False, training: bool = False) -> Collator:
        collator = super().collator(tail=tail, seen=seen, training=training)
        if training:
            return _PairsWithoutHistories(num_negatives=cast(PairCollator, collator).num_negatives)
        return collator


class _PairsWithoutHistories(PairCollator):
    """In training every user has edges, so `histories (Q, 0)` are empty."""

    def __call__(self, rows: ChosenPairs) -> dict[str, Tensor]:
        batch = super().__call__(rows)
        return {**batch, "histories": torch.empty(len(batch["user_ids"]), 0, dtype=torch.int64)}

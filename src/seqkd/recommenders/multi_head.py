"""Recommenders with several heads: each scores items in its own way and has an objective of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..batches.collators import UNLABELLED
from ..catalogue import PADDING
from ..errors import ConfigError
from ..functional.candidate_scores import candidate_scores
from .multi_head_configuration import MultiHeadConfig
from .recommender import RecommenderOutput
from .user_recommender import UserRecommender


@dataclass
class MultiHeadOutput(RecommenderOutput):
    """`query_embeddings (Q, D)` are those of the head that answers; here are those of all, in the heads' order.

    `losses`, h x `()`: of every head, a mean over the labelled queries, without its weight; `training_loss` leaves them
    here for methods that balance heads, so that nothing is computed twice. They are not stacked, so that the gradient
    of one is the work of one.
    """

    user_ids: Tensor | None = None  # (Q,)
    head_queries: tuple[Tensor, ...] | None = None  # h x (Q, D_h)
    losses: tuple[Tensor, ...] | None = None


class Candidates(NamedTuple):
    """Lists of items, each item once: `item_ids (m,)` begin with padding, `places (n, C)` say where one is in them."""

    item_ids: Tensor
    places: Tensor

    @classmethod
    def of(cls, lists: Tensor) -> Candidates:
        """From lists of internal ids `(n, C)`."""
        item_ids, places = F.pad(lists.flatten(), (1, 0), value=PADDING).unique(return_inverse=True)
        return cls(item_ids, places[1:].view(lists.shape))


class MultiHeadRecommender(UserRecommender):
    """Base of models with several heads over one table of users and one of items.

    All heads are trained, by the sum of their losses with the weights `head_weights (h,)`, which stay 1 unless a method
    balances them; one answers, `config.head`. Each scores by a dot product of what it makes of a user and of an item.

    A subclass writes `forward`, `head_items`, `head_losses`, `tables` and `keep_head`.
    """

    config: MultiHeadConfig
    head_weights: Tensor

    def __init__(self, config: MultiHeadConfig) -> None:
        super().__init__(config)
        self.register_buffer("head_weights", torch.ones(len(config.heads)))

    # ---- what a subclass writes -------------------------------------------------------------------------------

    def head_items(self, head: str, item_ids: Tensor | None = None) -> Tensor:
        """What a head makes of items: `(I+1, D_h)`, or `(*item_ids.shape, D_h)`."""
        raise NotImplementedError

    def head_losses(self, output: MultiHeadOutput, targets: Tensor, negatives: Tensor) -> tuple[Tensor, ...]:
        """The objective of every head as a mean over queries, `()`, at `targets (Q,)` and `negatives (Q, N)`."""
        raise NotImplementedError

    @property
    def tables(self) -> tuple[Tensor, Tensor]:
        """What the heads share: users `(U+1, d)` and items `(I+1, d)`."""
        raise NotImplementedError

    def ranking_scale(self, head: str) -> float:
        """Factor of a head's scores where it is taught a ranking, so that small scores can say much."""
        return 1.0

    def keep_head(self, head: str) -> MultiHeadRecommender:
        """The product: a model with this head alone, which scores as the head does here."""
        raise NotImplementedError

    # ---- heads ------------------------------------------------------------------------------------------------

    @property
    def head_names(self) -> tuple[str, ...]:
        return tuple(self.config.heads)

    @contextmanager
    def answering(self, head: str) -> Iterator[None]:
        """Within it, `head` answers: what is asked of the model is then asked of this head.

        Raises:
            ConfigError: there is no such head.
        """
        self.check_head(head)
        usual, self.config.head = self.config.head, head
        try:
            yield
        finally:
            self.config.head = usual

    def check_head(self, head: str) -> None:
        """Raises:
        ConfigError: there is no such head.
        """
        if head not in self.config.heads:
            raise ConfigError(f"there is no head {head!r}; the heads of this model are {list(self.config.heads)}.")

    def head_scores(self, head: str, queries: Tensor, candidates: Candidates) -> Tensor:
        """Scores `(n, C)` of candidates by what the head says of the queries, `(n, D_h)`."""
        return candidate_scores(queries, self.head_items(head, candidates.item_ids), candidates.places)

    def item_embeddings(self, item_ids: Tensor | None = None) -> Tensor:
        """Of the head that answers: `(I+1, D)`, row 0 padding; or `(*item_ids.shape, D)`."""
        return self.head_items(self.config.head, item_ids)

    # ---- training ---------------------------------------------------------------------------------------------

    def training_loss(  # type: ignore[override]
        self,
        output: MultiHeadOutput,
        targets: Tensor,
        step_targets: Tensor | None = None,
        negatives: Tensor | None = None,
    ) -> Tensor:
        """The weighted sum of the heads' losses, the same for every labelled query, `(Q,)`."""
        labelled = targets != UNLABELLED
        if negatives is None:
            raise ConfigError("heads are trained on pairs with negatives: batches of model.collator(training=True).")
        output.losses = self.head_losses(only(output, labelled), targets[labelled], negatives[labelled])
        # a copy, as a method may set the weights of the next step before this one's backward
        return (self.head_weights.clone() * torch.stack(output.losses)).sum() * labelled


def only(output: MultiHeadOutput, chosen: Tensor) -> MultiHeadOutput:
    """The output of some queries, `chosen (Q,)` bool."""
    return MultiHeadOutput(
        query_embeddings=output.query_embeddings[chosen],
        user_ids=cast(Tensor, output.user_ids)[chosen],
        head_queries=tuple(queries[chosen] for queries in output.head_queries or ()),
    )

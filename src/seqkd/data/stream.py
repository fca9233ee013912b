"""A log that never stops, as blocks: each a split over all users and items known by its end."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..catalogue import Catalogue
from .split import Split


@dataclass(frozen=True, eq=False)
class Block(Split):
    """Block k of a stream: its own train, valid and test, in ids that only grow.

    `catalogue` and `users` hold whatever blocks 0 to k name, in the order of first appearance, so that a model of an
    earlier block keeps its rows and those of new users and items follow.

    Attributes:
        number: k, from 0.
        known_items, known_users: what earlier blocks name: new ones are numbered from there on.
    """

    everyone: Catalogue = field(default_factory=lambda: Catalogue([]))
    number: int = 0
    known_items: int = 0
    known_users: int = 0

    @property
    def users(self) -> Catalogue:  # type: ignore[override]
        """All users of blocks 0 to k."""
        return self.everyone

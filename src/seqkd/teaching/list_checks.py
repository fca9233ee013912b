"""Whether teachers' lists are about what the student learns: others could be taught as well, to no purpose."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..batches.positives import Positives
from ..catalogue import PADDING
from ..errors import KnowledgeError
from ..knowledge import Knowledge


def require_unseen(knowledge: Mapping[str, Knowledge]) -> None:
    """Refuse lists that hold what the query's history does: a student would learn to rank highest what users have.

    Raises:
        KnowledgeError: lists were exported with `filter_seen=False`, the default of `export`.
    """
    for name, said in knowledge.items():
        if not said.source.options.get("filter_seen", True):
            raise KnowledgeError(
                f"the lists of {name!r} hold what users have already, but are to say what they lack. Export them with "
                "filter_seen=True; where a method wants the rest, too, it is the table query_seen_topk."
            )


def require_length(knowledge: Mapping[str, Knowledge], length: int, num_items: int) -> None:
    """Refuse lists so short that what is compared with them is mostly beyond their end.

    Args:
        length: places that are read of each; at most `num_items` can be.

    Raises:
        KnowledgeError: naming the teacher and its length.
    """
    wanted = min(length, num_items)
    for name, said in knowledge.items():
        places = said.tables["query_topk"].shape[1]
        if places < wanted:
            raise KnowledgeError(
                f"the lists of {name!r} have {places} places, but {wanted} are compared. Export them with k={wanted}, "
                f"or set list_length={places}."
            )


def require_training_queries(answered: Mapping[str, int], positives: Positives) -> None:
    """Refuse teachers that answer more or fewer queries than training asks: their rows are about other users.

    Args:
        answered: queries by teacher.

    Raises:
        KnowledgeError: the numbers differ.
    """
    asked = len(positives.query_user)
    for name, rows in answered.items():
        if rows != asked:
            raise KnowledgeError(
                f"{name!r} answers {rows} queries, but the training part asks {asked}. Export the part that the "
                "student is trained on, whole and of the same split."
            )


def require_training_items(seen: Tensor, positives: Positives) -> None:
    """Refuse lists of what users have that name what they have not: another split, which may have seen the test part.

    Args:
        seen: `(N, P)` by query id, 0 for an empty place; on the CPU.

    Raises:
        KnowledgeError: naming the first such query and item.
    """
    wrong = (seen != PADDING) & ~positives.of_queries(torch.arange(len(seen)), seen)
    if wrong.any():
        query, place = wrong.nonzero()[0].tolist()
        raise KnowledgeError(
            f"teachers say that the user of query {query} has item {int(seen[query, place])}, who has not in the "
            "training part. Export them on the split that the student is trained on: the same data, rule and seed."
        )

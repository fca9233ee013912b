"""Several teachers as one: only the order in which they rank counts, so that unlike models can speak together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ..knowledge import Knowledge
from ..knowledge.ensemble import by_rank, consensus, rank_consensus

USERS = "item_topk"


def agree(told: Mapping[str, Knowledge]) -> Knowledge:
    """What teachers of one block say together: rank r counts `(1 / (r + 1))^0.05`, a mean over teachers (CCD).

    Their common list is scored by its ranks (see `by_rank`), for methods that read scores: that importance is flat.

    Args:
        told: of each teacher, `query_topk` and perhaps `item_topk`, of which the same is made.
    """
    first = next(iter(told.values()))
    if len(told) == 1:
        return first
    together = by_rank(rank_consensus(told, importance="power"))
    tables = {name: together.table(name) for name in together.tables}
    if USERS in first.tables:
        tables[USERS] = _users([one.table(USERS) for one in told.values()])
    return Knowledge.from_tables(tables, source=together.source, catalogue=together.catalogue)


def _users(lists: Sequence[torch.Tensor]) -> torch.Tensor:
    """The users on whom the teachers agree, `(I+1, M)`; nobody for padding."""
    agreed, _ = consensus(lists, torch.ones(len(lists)), importance="power", k=lists[0].shape[1])
    return agreed.int()

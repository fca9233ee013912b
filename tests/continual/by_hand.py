"""Three blocks written out: four users, six items, each interaction in its part."""

from __future__ import annotations

from functools import cache

import numpy as np

from seqkd.catalogue import Catalogue
from seqkd.data.stream import TEST, TRAIN, VALID, Block
from seqkd.data.stream_rows import block_of

LOGS = [  # user, item, part, in order of time
    [(1, 1, TRAIN), (1, 2, TRAIN), (2, 2, TRAIN), (3, 3, TRAIN), (3, 1, TRAIN),
     (1, 3, VALID), (2, 1, VALID), (1, 4, TEST)],
    [(1, 3, TRAIN), (1, 5, TRAIN), (4, 5, TRAIN), (4, 2, TRAIN), (1, 2, VALID), (4, 3, VALID), (4, 1, TEST)],
    [(4, 6, TRAIN), (2, 3, TRAIN), (2, 6, TRAIN), (2, 5, VALID), (2, 1, TEST), (4, 4, TEST)],
]  # fmt: skip
USERS, ITEMS = [3, 4, 4], [4, 5, 6]  # known by the end of each block


@cache
def blocks(queries: str = "users") -> tuple[Block, ...]:
    made: list[Block] = []
    for log, users, items in zip(LOGS, USERS, ITEMS, strict=True):
        user, item, part = np.array(log).T
        everyone = Catalogue([f"u{u}" for u in range(1, users + 1)])
        catalogue = Catalogue([f"i{i}" for i in range(1, items + 1)])
        told = {"user": user.astype(np.int32), "item": item.astype(np.int32), "part": part.astype(np.int8)}
        how = {"split": "random", "queries": queries, "domain": "shop", "max_length": 20, "report": {}}
        made.append(block_of(made, told, catalogue, everyone, **how))
    return tuple(made)


def rows(dataset) -> dict[str, list[int]]:
    """Items of the last row of each user."""
    return dict(zip(dataset["user_id"], dataset["item_ids"], strict=True))

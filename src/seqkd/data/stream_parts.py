"""Which interactions of a block train, validate and test; what can be asked of no model is dropped."""

from __future__ import annotations

import numpy as np

from .stream import DROPPED, TEST, TRAIN, VALID


def random_parts(
    user: np.ndarray, item: np.ndarray, draw: np.ndarray, trained: np.ndarray, share: float = 0.1
) -> np.ndarray:
    """The split of CCD (Lee et al., KDD 2024): some of each user's interactions, whatever their time.

    Of a user's n interactions, shuffled, the first `max(floor(share n), 1)` test, as many validate, the rest trains.
    Who then lacks validation or test, since he has one interaction or nobody trains on what he was to be asked for,
    loses both. Who has two trains on nothing, but is asked.

    Args:
        user, item: `(N,)`, one block.
        draw: `(N,)`; its ascending order is that of the shuffled list of a user.
        trained: `(I+1,)`, whether an earlier block trains on an item.

    Returns:
        `(N,)`: 0 train, 1 valid, 2 test, -1 dropped.
    """
    counts = np.bincount(user)
    place = np.empty_like(user)
    place[np.lexsort((draw, user))] = np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts)
    held = np.maximum(np.floor(share * counts + 1e-9), 1)[user]  # 0.1 * 30 is a little above 3, 0.3 * 10 below
    part = np.where(place < held, TEST, np.where(place < 2 * held, VALID, TRAIN))
    part = _known_only(part, item, trained)
    whole = np.logical_and(*(np.bincount(user[part == each], minlength=len(counts)) > 0 for each in (VALID, TEST)))
    return np.where((part != TRAIN) & ~whole[user], DROPPED, part)


def temporal_parts(time: np.ndarray, item: np.ndarray, trained: np.ndarray, share: float = 0.1) -> np.ndarray:
    """One point in time for all users of a block: its newest `share` tests, the share before validates.

    Interactions of one moment stay together, in the later part.

    Args, returns: as of `random_parts`; `time (N,)`.
    """
    when, count = np.sort(time), len(time)
    limits = when[[int(count * (1 - 2 * share) + 1e-9), int(count * (1 - share) + 1e-9)]]
    return _known_only(np.searchsorted(limits, time, side="right"), item, trained)


def _known_only(part: np.ndarray, item: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Drops what is to be asked for, but trained on neither here nor in an earlier block."""
    trained = trained.copy()
    trained[item[part == TRAIN]] = True
    return np.where((part != TRAIN) & ~trained[item], DROPPED, part)

"""The random split is the paper's: by the golden vectors' shuffled order, and rule by rule."""

from __future__ import annotations

import json

import numpy as np

from seqkd.data.stream_parts import random_parts, temporal_parts


def test_the_authors_random_split(golden):
    """Their draw: numpy's shuffle of each user's list in turn. What becomes of it is the rule."""
    told = json.loads((golden / "ccd_misc.json").read_text())["split"]
    user, item = np.array(told["rows_user_item"]).T
    state, draw = np.random.RandomState(told["numpy_seed"]), np.empty(len(user))
    for one in np.unique(user):
        order = np.flatnonzero(user == one)
        state.shuffle(order)
        draw[order] = np.arange(len(order))
    part = random_parts(user, item + 1, draw, np.zeros(40, dtype=bool))
    for number, name in enumerate(("train", "valid", "test")):
        for one in np.unique(user):
            mine = np.flatnonzero((user == one) & (part == number))
            assert item[mine[np.argsort(draw[mine])]].tolist() == told[name].get(str(one), []), (name, one)


def test_small_users():
    user = np.array([0, 1, 1, 2, 2, 2, 3, 3, 3])
    item = np.array([1, 1, 2, 3, 1, 2, 4, 1, 1])
    draw = np.arange(9)
    # One interaction: nothing validates, so it vanishes. Two: asked, without training. Nobody trains on 3 and 4: their
    # users lose validation, too. Item 2 and item 1 are trained on by the last two users.
    trained = np.zeros(5, dtype=bool)
    assert random_parts(user, item, draw, trained).tolist() == [-1, 2, 1, -1, -1, 0, -1, -1, 0]
    trained[[3, 4]] = True  # by an earlier block
    assert random_parts(user, item, draw, trained).tolist() == [-1, 2, 1, 2, 1, 0, 2, 1, 0]


def test_shares_are_rounded_down_but_at_least_one():
    for count, share, held in ((19, 0.1, 1), (20, 0.1, 2), (30, 0.1, 3), (10, 0.3, 3), (3, 0.1, 1), (70, 0.1, 7)):
        user, trained = np.zeros(count, dtype=np.int64), np.ones(count + 1, dtype=bool)
        part = random_parts(user, np.arange(1, count + 1), np.random.default_rng(0).random(count), trained, share)
        assert np.bincount(part).tolist() == [count - 2 * held, held, held]


def test_one_point_in_time():
    time, item = np.array([9, 1, 2, 3, 4, 5, 6, 7, 8, 8]), np.array([1, 1, 2, 3, 4, 5, 6, 7, 1, 8])
    trained = np.zeros(9, dtype=bool)
    # Eight of ten train, but the eighth, of time 8, goes with the ninth, which validates. Nobody trains on item 8.
    assert temporal_parts(time, item, trained).tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 1, -1]
    trained[8] = True
    # Six train; of the two of time 7 and 8 that would validate the second goes with the ninth; nobody trains on item 7.
    assert temporal_parts(time, item, trained, 0.2).tolist() == [2, 0, 0, 0, 0, 0, 0, -1, 2, 2]

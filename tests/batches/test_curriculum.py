from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest

from seqkd.batches.collators import SequenceDataset
from seqkd.batches.curriculum import Curriculum, QuerySampler, history_statistics
from seqkd.errors import ConfigError

from ..tiny import rows_of

# ---- pacing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pacing", "step", "expected"),
    [
        ("sqrt", 0, 0.2),
        ("sqrt", 15, sqrt(0.52)),  # half way: 0.5 * (1 - 0.04) + 0.04
        ("sqrt", 30, 1.0),
        ("sqrt", 99, 1.0),
        ("linear", 0, 0.2),
        ("linear", 15, 0.6),
        ("linear", 30, 1.0),
        ("stages", 5, 0.2),  # the first of five stairs
        ("stages", 6, 0.36),
        ("stages", 11, 0.36),
        ("stages", 15, 0.52),
        ("stages", 29, 0.84),
        ("stages", 30, 1.0),
    ],
)
def test_competence_by_hand(pacing, step, expected):
    """c0 = 0.2 and 30 % of 100 steps: everything is open from step 30 on."""
    curriculum = Curriculum(initial_competence=0.2, fraction=0.3, pacing=pacing, stages=5)
    assert curriculum.competence(step, 100) == pytest.approx(expected)


@pytest.mark.parametrize("pacing", ["sqrt", "linear", "stages"])
def test_competence_never_falls_and_copes_with_very_short_runs(pacing):
    curriculum = Curriculum(pacing=pacing)
    path = [curriculum.competence(step, 37) for step in range(38)]
    assert path == sorted(path) and path[0] == pytest.approx(0.2) and path[-1] == 1.0
    assert curriculum.competence(1, 1) == curriculum.competence(1, 0) == 1.0


@pytest.mark.parametrize(
    "settings",
    [
        {"initial_competence": 0.0},
        {"initial_competence": 1.1},
        {"fraction": 0.0},
        {"fraction": 1.5},
        {"pacing": "cosine"},
        {"length_direction": 0},
    ],
)
def test_settings_that_mean_nothing_are_refused(settings):
    with pytest.raises(ConfigError, match=str(next(iter(settings.values())))):
        Curriculum(**settings)


# ---- difficulty -----------------------------------------------------------------------------------------------------


def test_difficulty_by_hand():
    lengths, rarity = np.array([1, 2, 3, 4]), np.array([0.4, 0.3, 0.2, 0.1])
    # percentiles: length 1/4, 2/4, 3/4, 1 and rarity 1, 3/4, 2/4, 1/4
    assert Curriculum(length_weight=1.0).difficulty(lengths, rarity).tolist() == [0.25, 0.5, 0.75, 1]
    assert Curriculum(length_weight=0.0).difficulty(lengths, rarity).tolist() == [1, 0.75, 0.5, 0.25]
    # 0.75 * length + 0.25 * rarity = .4375, .5625, .6875, .8125
    assert Curriculum(length_weight=0.75).difficulty(lengths, rarity).tolist() == [0.25, 0.5, 0.75, 1]
    # half and half: every sum is .625, and ties share the upper percentile
    assert Curriculum(length_weight=0.5).difficulty(lengths, rarity).tolist() == [1, 1, 1, 1]


def test_short_histories_are_hard_when_told_so():
    lengths, rarity = np.array([1, 1, 2]), np.zeros(3)
    assert Curriculum(length_weight=1.0).difficulty(lengths, rarity) == pytest.approx([2 / 3, 2 / 3, 1])
    backwards = Curriculum(length_weight=1.0, length_direction=-1)
    assert backwards.difficulty(lengths, rarity) == pytest.approx([1, 1, 1 / 3])


def test_history_statistics_by_hand():
    """Item 1 is half of all purchases, items 2 and 3 a quarter each: -log p is log 2 and 2 log 2."""
    dataset = SequenceDataset(rows_of([[1, 2, 1], [3]], last_only=False), 3)
    lengths, rarity = history_statistics(dataset, np.array([0, 2, 1, 1]))
    assert lengths.tolist() == [1, 2, 3, 1]
    assert rarity == pytest.approx([log(2), 1.5 * log(2), 4 / 3 * log(2), 2 * log(2)])


def test_history_statistics_of_rows_that_ask_at_the_end_only():
    dataset = SequenceDataset(rows_of([[1, 2, 1], [3, 1]], last_only=True), 3)  # first targets 2 and 1
    lengths, rarity = history_statistics(dataset, np.array([0, 2, 1, 1]))
    assert lengths.tolist() == [2, 3, 1, 2]  # histories [1, 2], [1, 2, 1], [3], [3, 1]
    assert rarity == pytest.approx([1.5 * log(2), 4 / 3 * log(2), 2 * log(2), 1.5 * log(2)])


def test_an_item_that_was_never_bought_is_rare_and_not_infinite():
    dataset = SequenceDataset(rows_of([[1, 2]], last_only=False), 2)
    _, rarity = history_statistics(dataset, np.array([0, 4, 0]))
    assert rarity == pytest.approx([0, log(4) / 2])  # counts as bought once


# ---- the sampler ----------------------------------------------------------------------------------------------------


def epoch_of(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return list(sampler)


def steps_of(rows, batch_size):
    return [rows[at : at + batch_size] for at in range(0, len(rows), batch_size)]


def test_without_curriculum_an_epoch_is_a_permutation():
    sampler = QuerySampler(12, 4, seed=0)
    assert len(sampler) == 12 and sorted(epoch_of(sampler)) == list(range(12))


def test_the_last_step_is_filled_up_from_a_new_shuffle():
    sampler = QuerySampler(10, 4, seed=0)
    rows = epoch_of(sampler)
    assert len(rows) == len(sampler) == 12
    assert sorted(rows[:10]) == list(range(10))


def test_a_batch_larger_than_the_data_is_still_full():
    rows = epoch_of(QuerySampler(3, 8, seed=0))
    assert len(rows) == 8 and sorted(rows[:6]) == [0, 0, 1, 1, 2, 2]


def test_order_depends_on_seed_and_epoch_alone():
    first = QuerySampler(40, 8, seed=3)
    orders = [epoch_of(first, epoch) for epoch in (0, 1, 2)]
    again = QuerySampler(40, 8, seed=3)
    assert [epoch_of(again, epoch) for epoch in (2, 0)] == [orders[2], orders[0]]  # resuming replays it
    assert orders[0] != orders[1] != orders[2]
    assert epoch_of(QuerySampler(40, 8, seed=4)) != orders[0]


def test_only_unlocked_rows_are_drawn_and_the_pool_grows():
    unlocked_from = np.arange(1, 41) / 40  # row r opens at (r + 1) / 40
    competence = {0: 0.2, 1: 0.2, 2: 0.5, 3: 0.5, 4: 1.0}.__getitem__
    steps = steps_of(epoch_of(QuerySampler(40, 8, 0, unlocked_from, competence)), 8)
    assert [len(step) for step in steps] == [8] * 5
    assert sorted(steps[0]) == sorted(steps[1]) == list(range(8))  # all eight open rows, then all of them again
    assert sorted(steps[2] + steps[3][:4]) == list(range(8, 20))  # the twelve new rows come before a repetition
    assert set(steps[3][4:]) <= set(range(20))  # then the pool of twenty, shuffled anew
    assert len(set(steps[4])) == 8 and set(steps[4]) & set(range(20, 40))
    assert not set(steps[4]) & set(steps[3][4:])  # drawn from what is left and what is new


def test_drawing_is_without_replacement_inside_the_pool():
    """With 8 of 20 rows open and steps of 3, every run of 8 draws from the start of a shuffle holds 8 rows."""
    unlocked_from = np.where(np.arange(20) < 8, 0.1, 0.9)
    rows = epoch_of(QuerySampler(20, 3, 0, unlocked_from, lambda step: 0.5))
    assert len(rows) == 21
    for at in (0, 8):
        assert sorted(rows[at : at + 8]) == list(range(8))


def test_competence_is_asked_for_the_global_step():
    asked = []
    sampler = QuerySampler(6, 2, 0, np.zeros(6), lambda step: asked.append(step) or 1.0)
    epoch_of(sampler, epoch=2)
    assert asked == [6, 7, 8]


def test_the_easiest_rows_are_drawn_when_nothing_is_unlocked():
    unlocked_from = np.array([0.9, 0.4, 0.8, 0.4, 0.7])
    assert set(epoch_of(QuerySampler(5, 2, 0, unlocked_from, lambda step: 0.1))) == {1, 3}

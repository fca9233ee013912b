import json

import numpy as np
import pytest
import torch

from seqkd.batches.collators import SequenceDataset
from seqkd.batches.pairs import PairCollator, TrainingPairs, scattered
from seqkd.catalogue import Catalogue

from .test_positives import rows


def pairs_of(*columns, items=9):
    part = rows(*columns)
    return TrainingPairs(SequenceDataset(part, items, Catalogue(dict.fromkeys(part["user_id"]))))


def test_every_interaction_once_with_the_query_that_asks_for_it():
    """Two windows of one user, which overlap in item 7, and a second user."""
    pairs = pairs_of([[5, 6, 7], [7, 8], [1, 2]], [1, 1, 1], [0, 3, 5], ["u", "u", "v"])
    assert pairs.users.tolist() == [1, 1, 1, 1, 2, 2]
    assert pairs.targets.tolist() == [5, 6, 7, 8, 1, 2]
    assert pairs.query_ids.tolist() == [2, 0, 1, 3, 6, 5]  # the first of a history belongs to the end of its row
    assert pairs.end.tolist() == [0, 1, 2, 1, 0, 1]


def test_a_set_is_one_query_and_its_own_history():
    pairs = pairs_of([[5, 6, 7], [2]], [3, 1], [0, 1], ["u", "v"])
    assert pairs.targets.tolist() == [5, 6, 7, 2] and pairs.query_ids.tolist() == [0, 0, 0, 1]
    batch = PairCollator(window=2)(pairs.__getitems__([0, 2, 3]))
    assert batch["histories"].tolist() == [[7, 6], [0, 6], [0, 0]]  # never the target itself


def test_histories_of_positions_are_what_came_before():
    pairs = pairs_of([[5, 6, 5, 7]], [1], [0], ["u"])
    batch = PairCollator(window=3)(pairs.__getitems__([2, 3, 0]))
    assert batch["histories"].tolist() == [[6, 5, 0], [5, 6, 5], [0, 0, 0]]
    assert batch["history_lengths"].tolist() == [2, 3, 0]


def test_negatives_are_what_the_user_has_not_evenly():
    pairs = pairs_of([[1, 2, 3, 4, 5, 6], [9]], [6, 1], [0, 1], ["u", "v"])
    collate = PairCollator(num_negatives=2000)
    drawn = collate(pairs.__getitems__([0, 6]))["negatives"]
    assert np.bincount(drawn[0], minlength=10)[[7, 8, 9]].min() > 570  # 667 expected, deviation 21
    assert set(drawn[0].tolist()) == {7, 8, 9} and set(drawn[1].tolist()) == set(range(1, 9))


def test_draws_depend_on_pair_seed_and_epoch_alone():
    pairs = pairs_of([[1, 2, 3], [4, 5]], [3, 2], [0, 1], ["u", "v"], items=1000)
    collate = PairCollator(num_negatives=3)
    whole = collate(pairs.__getitems__([0, 1, 2, 3, 4]))["negatives"]
    parts = torch.cat([collate(pairs.__getitems__(half))["negatives"] for half in ([0, 1], [2, 3, 4])])
    assert torch.equal(whole, parts) and torch.equal(collate(pairs[3])["negatives"], whole[3:4])
    collate.epoch = 1
    assert not torch.equal(collate(pairs.__getitems__([0, 1, 2, 3, 4]))["negatives"], whole)


@pytest.mark.filterwarnings("error")  # numpy warns where a scalar overflows, and not where an array does
def test_who_has_nearly_everything_gets_what_is_left():
    """One item of 2,000 is free: a hundred draws mostly miss it."""
    everything = [item for item in range(1, 2001) if item != 777]
    pairs = pairs_of([everything], [1999], [0], ["u"], items=2000)
    assert set(PairCollator(num_negatives=5)(pairs.__getitems__([0, 9]))["negatives"].flatten().tolist()) == {777}


def test_who_has_everything_still_gets_an_answer():
    """Nothing is no negative for him; the item is drawn at random rather than never."""
    pairs = pairs_of([[1, 2]], [2], [0], ["u"], items=2)
    assert set(PairCollator(num_negatives=4)(pairs[0])["negatives"].flatten().tolist()) <= {1, 2}


@pytest.mark.parametrize("salt", [(0, 0, 0), (3, 1, 2)])
def test_scattered_keys_look_uniform(salt):
    """Chi-square over 16 cells of 16,000 keys: mean 15, deviation 5.5."""
    cells = np.bincount(scattered(np.arange(16_000), *salt) % 16, minlength=16)
    assert ((cells - 1000) ** 2 / 1000).sum() < 40


def test_a_row_without_items_is_its_users_query_without_a_label():
    pairs = pairs_of([[5, 6], [], [2]], [2, 0, 1], [0, 1, 2], ["u", "v", "w"])
    assert pairs.users.tolist() == [1, 1, 2, 3] and pairs.targets.tolist() == [5, 6, -100, 2]
    assert pairs.query_ids.tolist() == [0, 0, 1, 2] and pairs.end.tolist() == [2, 2, 0, 1]
    batch = PairCollator(num_negatives=50, window=2)(pairs.__getitems__([2, 3, 0]))
    assert batch["histories"].tolist() == [[0, 0], [0, 0], [6, 0]]
    assert set(batch["negatives"][0].tolist()) == set(range(1, 10)), "who has nothing refuses nothing"
    assert 2 not in batch["negatives"][1] and batch["history_lengths"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("lists", [[[], [3]], [[3], []]])
def test_a_row_without_items_may_stand_first_or_last(lists):
    pairs = pairs_of(lists, [len(items) for items in lists], [0, 1], ["u", "v"])
    assert pairs.users.tolist() == [1, 2] and pairs.query_ids.tolist() == [0, 1]
    assert pairs.targets.tolist() == [items[0] if items else -100 for items in lists]
    assert PairCollator(num_negatives=2)(pairs.__getitems__([0, 1]))["negatives"].shape == (2, 2)


def test_negatives_avoid_what_their_user_shall():
    """u has 1 and avoids 2 and 3; v has 3 and avoids 1."""
    part = rows([[1], [3]], [1, 1], [0, 1], ["u", "v"])
    avoid = torch.tensor([[1, 1, 2], [2, 3, 1]])
    pairs = TrainingPairs(SequenceDataset(part, 5, Catalogue(["u", "v"]), avoid))
    drawn = PairCollator(num_negatives=200)(pairs.__getitems__([0, 1]))["negatives"]
    assert set(drawn[0].tolist()) == {4, 5} and set(drawn[1].tolist()) == {2, 4, 5}


def test_golden_negatives_of_a_stream(golden):
    """CCD's are drawn from what a user neither has nor avoids; so are ours, from all of it."""
    case = json.loads((golden / "ccd_misc.json").read_text())["negatives"]
    items = {int(user): [item + 1 for item in had] for user, had in case["train"].items()}
    part = rows([*items.values()], [*map(len, items.values())], [*range(len(items))], [f"u{user}" for user in items])
    excluded = [(user + 1, item + 1) for user, row in enumerate(case["exclude_rows_for_users_0_1"]) for item in row]
    users = Catalogue([f"u{user}" for user in items])
    pairs = TrainingPairs(SequenceDataset(part, case["n_items"], users, torch.tensor(excluded).T))
    drawn = PairCollator(num_negatives=300)(pairs.__getitems__(range(len(pairs))))
    ours = {user: set() for user in items}
    for user, negatives in zip(drawn["user_ids"].tolist(), drawn["negatives"].tolist(), strict=True):
        ours[user - 1] |= set(negatives)
    for user, had in items.items():
        assert ours[user] == set(range(1, case["n_items"] + 1)) - set(had) - {i for u, i in excluded if u == user + 1}
    assert all(negative + 1 in ours[user] for user, _, negative in case["triples"])

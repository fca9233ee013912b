"""Metrics on the blocks of a stream, against the authors' own numbers, by hand and by a slow loop."""

from __future__ import annotations

import json
from dataclasses import replace
from math import isnan, log2
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import nn

from seqkd.catalogue import Catalogue
from seqkd.data.stream import Block
from seqkd.errors import ConfigError, DataError
from seqkd.evaluation.stream import asks_for_sets, block_metrics
from seqkd.evaluation.stream_matrix import StreamMatrix
from seqkd.models.mf import MFConfig, MFModel
from seqkd.recommenders.configuration import RecommenderConfig
from seqkd.recommenders.recommender import RecommenderModel, RecommenderOutput

from ..tiny import rows_of

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "ccd_stream_metrics.json").read_text())


def rows(asked) -> Dataset:
    """Rows of (user, history, targets), with the query ids that a split reserves."""
    sizes = [len(targets) + 1 for _, _, targets in asked]
    made = {
        "user_id": [user for user, _, _ in asked],
        "item_ids": [[*history, *targets] for _, history, targets in asked],
        "first_target": [len(history) for _, history, _ in asked],
        "query_start": (np.cumsum(sizes) - sizes).tolist(),
    }
    return Dataset.from_dict(made, features=rows_of([[1]], last_only=True).features)


def block(number, users, items, known, train, valid, test, queries="positions") -> Block:
    """Users and items are numbered from 1; `known` users and items are those of the blocks before."""
    return Block(
        Catalogue(f"i{i}" for i in range(1, items + 1)),
        *(rows([(f"u{user}", *row) for user, *row in part]) for part in (train, valid, test)),
        f"stream-random-{queries}",
        "tiny",
        everyone=Catalogue(f"u{u}" for u in range(1, users + 1)),
        number=number,
        known_users=known[0],
        known_items=known[1],
    )


def set_block(number, users, items, known, train, valid, test) -> Block:
    """A block of sets from `{user: items}`, all numbered from 1."""

    def part(asked, *masked):
        return [(u, [i for found in masked for i in found.get(u, [])], targets) for u, targets in asked.items()]

    rows_of_train = [(user, items, []) for user, items in train.items() if items]
    return block(
        number, users, items, known, rows_of_train, part(valid, train, test), part(test, train, valid), "users"
    )


def shifted(part):
    """The golden numbers users and items from 0."""
    return {int(user) + 1: [item + 1 for item in items] for user, items in part.items()}


def golden_blocks() -> list[Block]:
    users, items = GOLDEN["cumulative_users"], GOLDEN["cumulative_items"]
    known = zip([0, *users], [0, *items], strict=True)
    parts = [[shifted(GOLDEN[part][f"TASK_{k}"]) for part in ("train", "valid", "test")] for k in range(3)]
    return [set_block(k, users[k], items[k], next(known), *parts[k]) for k in range(3)]


def scoring(scores, at: Block) -> MFModel:
    """A model that gives these `(users, items)` scores."""
    table = torch.tensor(scores)
    model = MFModel(MFConfig(num_users=len(table), num_items=table.shape[1], hidden_size=table.shape[1]))
    with torch.no_grad():
        model.user_embedding.weight[1:] = table
        model.item_embedding.weight[1:] = torch.eye(table.shape[1])
    model.set_catalogue(at.catalogue)
    model.set_users(at.users)
    return model


def metrics_as_released(model, block_i, block_k, ks=(2, 3, 5), **settings):
    """In the golden's names, `test_R2` for test `recall@2`. "P" is R where no set is larger than K, as in all of it."""
    told = {}
    for part in ("valid", "test"):
        found = block_metrics(model, block_i, block_k, part, ks, batch_size=2, **settings)
        for k in ks:
            told |= {f"{part}_{letter}{k}": found[f"recall@{k}"] for letter in "PR"}
            told[f"{part}_N{k}"] = found[f"ndcg@{k}"]
    return told


# ---- one block ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(3))
def test_every_block_so_far_as_released(k):
    blocks = golden_blocks()
    model = scoring(GOLDEN["scores"][f"after_block_{k}"], blocks[k])
    for i, expected in enumerate(GOLDEN["per_block_results"][f"after_block_{k}"]):
        assert metrics_as_released(model, blocks[i], blocks[k]) == pytest.approx(expected, abs=5.1e-5)


def test_a_frozen_model_as_released_skips_users_after_it():
    blocks = golden_blocks()
    frozen = scoring(GOLDEN["scores"]["after_block_0"], blocks[0])
    for later, expected in zip(blocks, GOLDEN["stale_model_scored_on_all_blocks"]["result"], strict=True):
        found = metrics_as_released(frozen, later, blocks[0], skip_unknown=True)
        assert found == pytest.approx(expected, abs=5.1e-5)


def test_a_frozen_model_finds_nothing_for_users_after_it():
    blocks = golden_blocks()
    frozen = scoring(GOLDEN["scores"]["after_block_0"], blocks[0])
    # block 1 asks users 0, 2, 5 and 6, the last two after the model; the release says 1 of the first two
    found = block_metrics(frozen, blocks[1], blocks[0], ks=(3,))
    assert found["recall@3"] == pytest.approx(1.0 * 2 / 4) and found["users"] == 4
    assert found["old_users/recall@3"] == 1 and found["new_users/recall@3"] == 0 and found["new_users/users"] == 2
    # block 2 asks users 1, 3 and 7; of item 11, which is after the model, too, nothing is found
    found = block_metrics(frozen, blocks[2], blocks[0], ks=(5,))
    assert found["recall@5"] == pytest.approx(0.25 * 2 / 3) and found["targets"] == 4
    assert found["old_users/users"] == 2


def test_repeats_and_what_is_known_already_as_released():
    golden = GOLDEN["dup_and_leak"]
    only = set_block(0, 2, 6, (0, 0), *(shifted(golden[part]) for part in ("train", "valid", "test")))
    found = metrics_as_released(scoring(golden["scores"], only), only, only, ks=(2, 3))
    expected = {f"{part}_{name}": value for part, told in golden["result"].items() for name, value in told.items()}
    assert found == pytest.approx(expected, abs=5.1e-5)


def test_slices_by_hand():
    """Block 1 asks users 0, 2, 5 and 6 for items 1, 0, 3 and 10; only user 5 finds his among 5, in place 4."""
    blocks = golden_blocks()
    found = block_metrics(scoring(GOLDEN["scores"]["after_block_1"], blocks[1]), blocks[1], blocks[1], ks=(3, 5))
    assert found["recall@5"] == 1 / 4 and found["users"] == found["targets"] == 4
    assert found["new_users/recall@5"] == 1 / 2 and found["new_users/users"] == 2
    assert found["new_users/ndcg@5"] == pytest.approx(1 / log2(5) / 2) and found["new_users/recall@3"] == 0
    assert found["old_users/recall@5"] == 0 and found["old_users/targets"] == 2
    assert found["new_items/recall@5"] == 0 and found["new_items/users"] == found["new_items/targets"] == 1
    base = block_metrics(scoring(GOLDEN["scores"]["after_block_0"], blocks[0]), blocks[0], blocks[0], ks=(3,))
    assert base["old_users/users"] == base["old_users/targets"] == 0 and isnan(base["old_users/recall@3"])
    assert base["new_users/recall@3"] == base["new_items/recall@3"] == base["recall@3"]  # nothing is known before it


def slow(scores, masked, truth, users, k, wanted):
    """Means over users, one at a time: R and NDCG at k of the targets that are wanted."""
    recalls, gains = [], []
    for user in users:
        left = wanted(user, truth[user])
        if not left:
            continue
        known = user <= len(scores)
        order = np.argsort([-score for score in scores[user - 1]], kind="stable") + 1 if known else []
        best = [item for item in order if item not in masked[user]][:k]
        recalls.append(sum(item in best for item in left) / len(left))
        gain = sum(1 / log2(best.index(item) + 2) for item in left if item in best)
        gains.append(gain / sum(1 / log2(place + 2) for place in range(min(k, len(left)))))
    return np.mean(recalls), np.mean(gains)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_slow_loop(frozen):
    draw = np.random.default_rng(5)
    users, items, known = 12, 30, (7, 20)
    train, valid, test = {}, {}, {}
    for user in range(1, users + 1):
        own = (draw.permutation(items) + 1).tolist()
        train[user], valid[user], test[user] = own[:4], own[4:5], own[5 : 6 + user % 5]
    first = set_block(0, *known, (0, 0), {1: [1]}, {}, {})
    later = set_block(1, users, items, known, train, valid, test)
    at = first if frozen else later
    scores = draw.standard_normal((len(at.users), len(at.catalogue))).astype(np.float32)
    found = block_metrics(scoring(scores, at), later, at, ks=(2, 6), batch_size=5)
    masked = {user: train[user] + valid[user] for user in train}
    slices = {
        "": (train, lambda user, left: left),
        "old_users/": (range(1, 8), lambda user, left: left),
        "new_users/": (range(8, 13), lambda user, left: left),
        "new_items/": (train, lambda user, left: [item for item in left if item > 20]),
    }
    for k in (2, 6):
        for name, (asked, wanted) in slices.items():
            recall, ndcg = slow(scores, masked, test, asked, k, wanted)
            assert found[f"{name}recall@{k}"] == pytest.approx(recall)
            assert found[f"{name}ndcg@{k}"] == pytest.approx(ndcg)
    assert found["new_items/targets"] == sum(item > 20 for left in test.values() for item in left)
    assert found["recall@6"] > 0


# ---- sequences ------------------------------------------------------------------------------------------------------

# newest item: score of padding, 1, 2, 3, 4, 5; everything else is level, so that nothing is found after it
AFTER = {1: [0, 9, 5, 4, 3, 2], 2: [99, 1, 8, 2, 2, 0]}


class LastItem(RecommenderModel):
    config_class = RecommenderConfig

    def __init__(self, num_items):
        super().__init__(RecommenderConfig(num_items=num_items, hidden_size=6, max_position_embeddings=4))
        self.table = nn.Parameter(torch.zeros(num_items + 1, 6))  # (item, newest item)
        for newest, scores in AFTER.items():
            self.table.data[:, newest] = torch.tensor(scores[: num_items + 1], dtype=torch.float32)

    def forward(self, item_ids, sequence_ids, position_ids, query_index):
        return RecommenderOutput(query_embeddings=F.one_hot(item_ids.flatten()[query_index], 6).float())

    def item_embeddings(self, item_ids=None):
        return self.table if item_ids is None else self.table[item_ids]


class LastItemOfUser(MFModel):
    """The same for known users with or without a history, and for others from their history."""

    unknown_users = True
    history_window = 4
    inputs = ("histories",)

    def __init__(self, at: Block):
        super().__init__(MFConfig(num_users=len(at.users), num_items=len(at.catalogue), hidden_size=6))
        self.item_embedding.weight.data = LastItem(len(at.catalogue)).table.data
        self.set_catalogue(at.catalogue)
        self.set_users(at.users)

    def forward(self, histories):
        return RecommenderOutput(query_embeddings=F.one_hot(histories[:, 0], 6).float())


def sequence_blocks() -> list[Block]:
    """Items 4 and 5 and users 2 and 3 are new in block 1."""
    asked = [(1, [1], [2, 5]), (2, [1], [3]), (3, [], [1, 4])]
    train = [(1, [1], [2])]
    return [block(0, 1, 3, (0, 0), train, [], [(1, [1], [2])]), block(1, 3, 5, (1, 3), train, [], asked)]


def test_positions_by_hand():
    """Places 1, 3, 2 and 3: 2 after 1; 5 after 1, 2; 3 after 1; 4 after 1. Item 1 of user 3 has nothing before it."""
    blocks = sequence_blocks()
    found = block_metrics(LastItem(5), blocks[1], blocks[1], ks=(1, 2, 3))
    assert [found[f"recall@{k}"] for k in (1, 2, 3)] == [1 / 4, 2 / 4, 1]
    assert found["ndcg@3"] == pytest.approx((1 + 1 / log2(4) + 1 / log2(3) + 1 / log2(4)) / 4)
    assert found["users"] == 3 and found["targets"] == 4
    assert [found[f"old_users/recall@{k}"] for k in (1, 2, 3)] == [1 / 2, 1 / 2, 1]
    assert [found[f"new_users/recall@{k}"] for k in (1, 2, 3)] == [0, 1 / 2, 1]
    assert found["new_items/recall@2"] == 0 and found["new_items/recall@3"] == 1 and found["new_items/targets"] == 2
    assert block_metrics(LastItem(5), blocks[0], blocks[1], ks=(1,))["recall@1"] == 1
    empty = block_metrics(LastItem(5), blocks[1], blocks[1], "valid", ks=(1,))
    assert empty["targets"] == 0 and isnan(empty["recall@1"])


def test_a_frozen_model_reads_the_items_it_knows():
    """Places 1 and 2 of items 2 and 3; 5 and 4 are not found. All users are asked, for it reads histories."""
    blocks = sequence_blocks()
    found = block_metrics(LastItem(3), blocks[1], blocks[0], ks=(1, 2))
    assert [found["recall@1"], found["recall@2"], found["targets"]] == [1 / 4, 2 / 4, 4]
    assert found["new_items/recall@2"] == 0 and found["new_users/recall@2"] == 1 / 2
    skipping = block_metrics(LastItem(3), blocks[1], blocks[0], ks=(1, 2), skip_unknown=True)
    assert [skipping["recall@2"], skipping["users"], skipping["targets"]] == [1 / 2, 1, 2]
    # 2 after 1 where 4 stands between them, and after 4 alone, which leaves nothing to answer from
    gap = block(1, 3, 5, (1, 3), [(1, [1], [2])], [], [(1, [1, 4], [2]), (2, [4], [2])])
    found = block_metrics(LastItem(3), gap, blocks[0], ks=(1,))
    assert [found["old_users/recall@1"], found["new_users/recall@1"]] == [1, 0]
    assert found["targets"] == 2


def test_a_frozen_model_that_reads_histories_answers_new_users():
    """User 3 is asked for item 1 without a history: a grown model knows him, but a frozen one cannot answer."""
    blocks = sequence_blocks()
    grown = block_metrics(LastItemOfUser(blocks[1]), blocks[1], blocks[1], ks=(2, 4))
    assert grown["targets"] == 5 and grown["recall@2"] == 2 / 5  # places 1, 3, 2, last and 3
    frozen = block_metrics(LastItemOfUser(blocks[0]), blocks[1], blocks[0], ks=(2,))
    assert [frozen["recall@2"], frozen["new_users/recall@2"]] == [2 / 5, 1 / 3] and frozen["targets"] == 5
    skipping = block_metrics(LastItemOfUser(blocks[0]), blocks[1], blocks[0], ks=(2,), skip_unknown=True)
    assert skipping["recall@2"] == 1 / 2 and skipping["users"] == 1


def test_what_a_block_asks_for():
    assert asks_for_sets(golden_blocks()[1]) and not asks_for_sets(sequence_blocks()[1])
    with pytest.raises(DataError, match=r"block 1, 'random', does not say.*end in -users or -positions"):
        asks_for_sets(replace(sequence_blocks()[1], protocol="random"))


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_refused():
    blocks = golden_blocks()
    model = scoring(GOLDEN["scores"]["after_block_1"], blocks[1])
    for part in ("train", "tset"):
        with pytest.raises(ConfigError, match=rf"\('valid', 'test'\), got '{part}'"):
            block_metrics(model, blocks[1], blocks[1], part, ks=(3,))
    with pytest.raises(ConfigError, match="metrics at 100 of 12 items say nothing"):
        block_metrics(model, blocks[1], blocks[1])
    with pytest.raises(ConfigError, match="metrics at 12 of 12 items"):
        block_metrics(model, blocks[1], blocks[1], ks=(3, 12))
    with pytest.raises(ConfigError, match="cut-offs must be at least 1"):
        block_metrics(model, blocks[1], blocks[1], ks=(0, 3))


def test_a_model_of_another_size():
    blocks = golden_blocks()
    small = scoring(GOLDEN["scores"]["after_block_0"], blocks[0])
    with pytest.raises(
        ConfigError, match=r"MFModel has 10 items and 5 users, but block 1 has 12 and 7. Grow the model"
    ):
        block_metrics(small, blocks[0], blocks[1], ks=(3,))
    middle = scoring(GOLDEN["scores"]["after_block_1"], blocks[1])  # block 2 has new users only
    with pytest.raises(ConfigError, match="12 items and 7 users, but block 2 has 12 and 8"):
        block_metrics(middle, blocks[1], blocks[2], ks=(3,))
    with pytest.raises(ConfigError, match="LastItem has 3 items, but block 1 has 5 and 3"):
        block_metrics(LastItem(3), *sequence_blocks(), ks=(1,))


def test_blocks_of_other_streams():
    blocks = golden_blocks()
    model = scoring(GOLDEN["scores"]["after_block_1"], blocks[1])
    others = {
        "users": replace(blocks[0], everyone=Catalogue("abcde")),
        "items": replace(blocks[0], catalogue=Catalogue("abcdefghij")),
    }
    for name, other in others.items():
        with pytest.raises(DataError, match=f"blocks 0 and 1 number their {name} otherwise"):
            block_metrics(model, other, blocks[1], ks=(3,))


def test_rows_longer_than_the_model_reads():
    """Nothing is left out of a mean unsaid: of 6 targets a model that reads 4 items is asked for the last 4."""
    long = block(0, 1, 5, (0, 0), [(1, [1], [2])], [], [(1, [1], [2, 3, 1, 2, 3, 4])])
    with pytest.raises(ConfigError, match=r"block 0 asks for 6 targets.*was asked for 4.*max_length=4"):
        block_metrics(LastItem(5), long, long, ks=(1,))


# ---- all blocks -----------------------------------------------------------------------------------------------------


def test_the_matrices_of_the_toy_stream():
    """From models to averages; the release rounds before it averages."""
    blocks = golden_blocks()
    asked = {"test_R3": ("test", "recall", 3), "valid_R3": ("valid", "recall", 3)}
    asked |= {"test_N3": ("test", "ndcg", 3), "test_P5": ("test", "recall", 5)}
    for name, (part, metric, k) in asked.items():
        matrix = StreamMatrix(f"{metric}@{k}")
        for after in range(3):
            model = scoring(GOLDEN["scores"][f"after_block_{after}"], blocks[after])
            tested = blocks[: after + 1]
            told = [block_metrics(model, each, blocks[after], part, ks=(k,)) for each in tested]
            matrix.add([found[matrix.metric] for found in told])
        for row, wanted in zip(matrix.rows, GOLDEN["a_matrices"][name], strict=True):
            assert row == pytest.approx(wanted, abs=5.1e-5)
        if name == "test_R3":
            last = GOLDEN["LA_RA_Hmean"]["toy_stream_test_R3"]["blocks 0..k, RA incl. current"][2]
            assert matrix.h_mean(2) == pytest.approx(last["H_mean"], abs=1e-4)

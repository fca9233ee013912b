"""The training of all blocks at once, or of a share of the earlier ones."""

from __future__ import annotations

import pytest

from seqkd.data.stream import Block
from seqkd.data.stream_cut import cut_stream
from seqkd.data.stream_rows import whole
from seqkd.errors import ConfigError

from .test_stream_cut import BASE, HAND, MORE, market, random_market


@pytest.fixture(scope="module")
def blocks():
    return cut_stream(market(random_market()), blocks=2, split="random")


def pairs(block):
    return {
        (user, item)
        for user, items in zip(block.train["user_id"], block.train["item_ids"], strict=True)
        for item in items
    }


def own(block):
    users, items = block.pairs("train")
    return {(block.users.item_ids[user - 1], item) for user, item in zip(users.tolist(), items.tolist(), strict=True)}


def test_by_hand():
    """u trains on a and b, then d; v on b, then e; e is what block 1 tests."""
    stream = cut_stream(market(BASE + MORE), **HAND)
    told = whole(stream)
    assert {row["user_id"]: row["item_ids"] for row in told.train} == {"u": [1, 4], "v": [2, 5], "w": [3], "x": [4]}
    assert told.test is stream[1].test and told.number == 1


def test_nothing_kept_is_the_last_block_alone(blocks):
    assert whole(blocks, keep=0.0).train.to_list() == blocks[2].train.to_list()


def test_all_kept_is_every_training_part_and_nothing_held_out(blocks):
    told = whole(blocks)
    assert pairs(told) == set().union(*map(own, blocks))
    held = {
        pair
        for block in blocks
        for part in ("valid", "test")
        for pair in zip(*map(tuple, block.pairs(part)), strict=True)
    }
    trained = {pair for block in blocks for pair in zip(*map(tuple, block.pairs("train")), strict=True)}
    users = {name: number for number, name in enumerate(told.users.item_ids, start=1)}
    assert not {(users[user], item) for user, item in pairs(told)} & (held - trained)


def test_a_share_is_of_the_earlier_blocks_alone_and_drawn_by_the_seed(blocks):
    half, again, other = whole(blocks, keep=0.5), whole(blocks, keep=0.5), whole(blocks, keep=0.5, seed=1)
    early = own(blocks[0]) | own(blocks[1])
    assert own(blocks[2]) <= pairs(half) <= own(blocks[2]) | early
    kept = len(pairs(half) & (early - own(blocks[2]))) / len(early - own(blocks[2]))
    assert 0.4 < kept < 0.6
    assert pairs(half) == pairs(again) != pairs(other) and half.fingerprint == again.fingerprint != other.fingerprint


def test_what_is_kept_does_not_hang_on_what_was_held_out(blocks):
    """Both are drawn by the seed; by the same numbers a tenth of block 0 would hardly be any of its training."""
    early = own(blocks[0]) - own(blocks[1]) - own(blocks[2])
    for seed in range(3):  # 0 is the seed of the blocks, too
        assert 0.05 < len(pairs(whole(blocks, keep=0.1, seed=seed)) & early) / len(early) < 0.16


def test_of_histories_only_what_was_trained_on_is_kept():
    """A history over all blocks holds what earlier blocks tested; this does not."""
    stream = cut_stream(market(random_market()), blocks=2, queries="positions", max_length=100)
    told = whole(stream, max_length=100)
    assert sum(map(len, told.train["item_ids"])) == sum(len(block.pairs()[0]) for block in stream)
    assert max(map(len, whole(stream, max_length=5).train["item_ids"])) == 6


def queries(rows):
    """Of each row its history, its targets and the ids of its queries."""
    for row in rows:
        first, start = row["first_target"], row["query_start"]
        ids = range(start, start + len(row["item_ids"]) - first + 1)
        yield (row["user_id"], tuple(row["item_ids"][:first]), tuple(row["item_ids"][first:])), ids


def test_a_buffer_of_histories_leaves_those_of_the_last_block_as_they_are():
    """What every other learner trains on stays, old items before its first target; earlier rows come behind it."""
    stream = cut_stream(market(random_market(events=1200)), blocks=2, queries="positions", max_length=8)
    half, own = whole(stream, keep=0.5), stream[2].train.to_list()
    assert half.train.to_list()[: len(own)] == own and whole(stream, keep=0.0).train.to_list() == own
    early = [row for block in stream[:2] for row, _ in queries(block.train)]
    told, ids = zip(*queries(half.train), strict=True)
    kept = told[len(own) :]
    assert 0.4 < len(kept) / len(early) < 0.6 and set(kept) <= set(early)
    assert [query for each in ids for query in each] == list(range(sum(map(len, ids)))), "each query once"
    again, other = whole(stream, keep=0.5), whole(stream, keep=0.5, seed=1)
    assert half.fingerprint == again.fingerprint != other.fingerprint
    assert half.test is stream[2].test and half.log is stream[2].log


def test_a_buffer_of_histories_takes_blocks_from_the_disk(tmp_path):
    stream = cut_stream(market(random_market()), blocks=2, queries="positions")
    stream[0].save(tmp_path)
    read = [Block.load(tmp_path), *stream[1:]]
    assert whole(read, keep=0.5).train.to_list() == whole(stream, keep=0.5).train.to_list()


@pytest.mark.parametrize("keep", [-0.1, 1.1])
def test_a_share_that_is_none_is_refused(blocks, keep):
    with pytest.raises(ConfigError, match="keep is a share"):
        whole(blocks, keep=keep)

"""A block is saved and loaded; what is damaged, or of another block, is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from seqkd.batches.target_sets import TargetSets
from seqkd.catalogue import Catalogue
from seqkd.data.split import Split
from seqkd.data.stream import Block
from seqkd.data.stream_cut import cut_stream
from seqkd.errors import DataError
from seqkd.evaluation.ranks import rank_targets
from seqkd.models.mf import MFConfig, MFModel

from .test_stream_cut import BASE, HAND, MORE, market


@pytest.fixture(scope="module")
def stream() -> list[Block]:
    return cut_stream(market(BASE + MORE), **HAND)


def test_a_saved_block_comes_back_equal(stream, tmp_path):
    for block in stream:
        folder = tmp_path / str(block.number)
        block.save(folder)
        again = Block.load(folder)
        assert again.fingerprint == block.fingerprint and again.users == block.users
        assert (again.number, again.known_items, again.known_users) == (
            block.number,
            block.known_items,
            block.known_users,
        )
        assert again.test.to_list() == block.test.to_list() and again.log.to_list() == block.log.to_list()
        assert again.log.features == block.log.features and again.report == block.report
        assert [part.tolist() for part in again.pairs("train")] == [part.tolist() for part in block.pairs("train")]
        assert Split.load(folder).test.to_list() == block.test.to_list()  # a block is a split, too


def test_blocks_differ_in_their_fingerprints(stream):
    block = stream[1]
    others = [
        replace(block, number=2),
        replace(block, known_users=2),
        replace(block, everyone=Catalogue(["u", "v", "x", "w"])),
        replace(block, log=block.log.select(range(4))),
        replace(block, log=block.log.select([])),
        stream[0],
    ]
    assert len({other.fingerprint for other in (block, *others)}) == 7
    assert replace(block, report={}).fingerprint == block.fingerprint


def test_a_block_made_by_hand_has_no_pairs(stream):
    split = {name: getattr(stream[0], name) for name in ("catalogue", "train", "valid", "test", "protocol", "domain")}
    with pytest.raises(DataError, match="block 3 has rows, but no log"):
        Block(**split, number=3).pairs("train")


def test_damaged_or_foreign_files_are_refused(stream, tmp_path):
    for block in stream:
        block.save(tmp_path / str(block.number))
    split = Split(*(getattr(stream[0], name) for name in ("catalogue", "train", "valid", "test", "protocol", "domain")))
    split.save(tmp_path / "split")
    with pytest.raises(DataError, match=r"no complete block of a stream .*block\.json"):
        Block.load(tmp_path / "split")
    for name in ("user_ids.json", "log.parquet"):
        stream[1].save(tmp_path / "1")
        (tmp_path / "1" / name).write_bytes((tmp_path / "0" / name).read_bytes())
        with pytest.raises(DataError, match=r"block\.json says"):
            Block.load(tmp_path / "1")
        (tmp_path / "1" / name).write_bytes(b"PAR1")
        with pytest.raises(DataError, match="no complete block of a stream"):
            Block.load(tmp_path / "1")
    (tmp_path / "0" / "block.json").write_text(json.dumps({"number": 0}))
    with pytest.raises(DataError, match="no complete block of a stream"):
        Block.load(tmp_path / "0")


def test_models_read_blocks(stream):
    """MF answers the test of block 0 as sized for block 1, and a known user who has nothing in the block."""
    torch.manual_seed(0)
    block = stream[1]
    model = MFModel(MFConfig(num_items=len(block.catalogue), num_users=len(block.users), hidden_size=4))
    model.set_catalogue(block.catalogue)
    model.set_users(block.users)
    scores = model.score(model(user_ids=torch.arange(5)).query_embeddings).detach().numpy()  # (U+1, I+1)
    for rows, user, masked, target in ((block.valid, 3, [], 1), (block.test, 1, [4], 5), (stream[0].test, 2, [2], 3)):
        got = rank_targets(model, TargetSets(rows, len(block.catalogue), block.users), depth=5)
        others = np.setdiff1d(np.arange(1, 6), [*masked, target])
        assert got.ranks.tolist() == [int((scores[user, others] >= scores[user, target]).sum())]
        assert got.targets.tolist() == [target]

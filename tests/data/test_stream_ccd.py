"""The published Yelp stream has the authors' counts; folders that are none are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqkd.data.stream import check_stream
from seqkd.data.stream_ccd import read_ccd
from seqkd.data.stream_cut import next_block
from seqkd.errors import DataError

from .test_stream_cut import market

YELP = [  # train, valid, test; users in the split; users and items so far (spec ccd, section 11)
    (119_869, 15_202, 15_206, 11_534, 12_248, 10_822),
    (33_032, 6_893, 6_895, 7_464, 13_367, 11_345),
    (20_189, 4_174, 4_180, 5_331, 13_896, 11_634),
    (20_056, 4_011, 4_014, 5_058, 14_399, 11_970),
    (23_567, 4_691, 4_682, 5_516, 14_761, 12_197),
    (21_291, 3_929, 3_933, 4_821, 14_950, 12_261),
]


def write(folder: Path, sizes=((2, 3), (3, 4)), **changes) -> Path:
    """Two blocks: users 0 and 1 with items 0 to 2, then user 2 and item 3."""
    blocks = [
        [(1, 2, "train"), (0, 0, "train"), (0, 1, "train"), (1, 0, "valid"), (1, 1, "test")],
        [(2, 3, "train"), (0, 3, "train"), (0, 2, "train"), (0, 2, "valid"), (0, 3, "test")],
    ]
    for number, block in enumerate(blocks):
        user, item, part = zip(*block, strict=True)
        table = pa.table({"user": user, "item": item, "split": part})
        pq.write_table(table, folder / f"block_{number}.parquet")
    counts = [{"n_users_cum": users, "n_items_cum": items} for users, items in sizes]
    (folder / "catalogue.json").write_text(json.dumps(counts))
    return folder


def test_a_small_stream_by_hand(tmp_path):
    stream = read_ccd(write(tmp_path))
    check_stream(stream)
    base, block = stream
    assert [tuple(row.values()) for row in base.train] == [("0", [1, 2], 2, 0), ("1", [3], 1, 1)]
    assert [tuple(row.values()) for row in base.valid] == [("1", [3, 2, 1], 2, 0)]  # masks train and test
    assert [tuple(row.values()) for row in base.test] == [("1", [3, 1, 2], 2, 0)]  # masks train and validation
    assert [tuple(row.values()) for row in block.test] == [("0", [4, 3, 3, 4], 3, 0)]
    assert block.report["repeated_interactions"] == 2 and block.protocol == "stream-random-users"
    assert (block.users.item_ids, block.catalogue.item_ids) == (("0", "1", "2"), ("0", "1", "2", "3"))
    assert (block.number, block.known_users, block.known_items) == (1, 2, 3)


def test_yelp(data: Path):
    stream = read_ccd(data / "ccd_yelp")
    check_stream(stream)
    for number, (block, told) in enumerate(zip(stream, YELP, strict=True)):
        counts = [len(block.pairs(part)[0]) for part in ("train", "valid", "test")]
        assert (*counts, block.report["users"], len(block.users), len(block.catalogue)) == told
        assert block.number == number and block.valid["user_id"][:] == block.test["user_id"][:]
        lengths = [sum(len(row) for row in block.part(part)["item_ids"][:]) for part in ("train", "valid", "test")]
        assert lengths[0] == counts[0] and lengths[1] == lengths[2]  # each masks the other
        asked = np.isin(*(block.pairs(part)[1] for part in ("test", "train")))
        assert asked.all()  # every test item is trained on in its block
    assert stream[1].report["asked_users_without_train"] == 1_321
    assert stream[0].report["repeated_interactions"] == 3_772


def test_the_published_stream_goes_on_with_a_log_of_ours(tmp_path):
    (tmp_path / "shop").mkdir()
    stream = read_ccd(write(tmp_path / "shop"))
    events = [(user, item, time) for user in ("0", "2", "9", "7") for time, item in enumerate(["3", "8", "1", "0"])]
    block = next_block(stream, market([*events, ("2", "2", 9)], "shop"), split="random", seed=1)
    assert block.users.item_ids == ("0", "1", "2", "9", "7") and block.catalogue.item_ids == ("0", "1", "2", "3", "8")
    assert (block.number, block.known_users, block.known_items) == (2, 3, 4)
    with pytest.raises(DataError, match="Go on with the settings"):
        next_block(stream, market([*events, ("2", "2", 9)], "shop"))


def test_folders_that_are_no_stream(tmp_path):
    with pytest.raises(DataError, match=r"catalogue\.json must list"):
        read_ccd(tmp_path)
    with pytest.raises(DataError, match=r"block_2\.parquet is missing"):
        read_ccd(write(tmp_path, sizes=((2, 3), (3, 4), (3, 4))))
    with pytest.raises(DataError, match=r"block_1\.parquet names items 2\.\.3, but catalogue\.json says .* 3"):
        read_ccd(write(tmp_path, sizes=((2, 3), (3, 3))))
    write(tmp_path)
    table = pq.read_table(tmp_path / "block_1.parquet")
    pq.write_table(table.drop_columns("item"), tmp_path / "block_1.parquet")
    with pytest.raises(DataError, match=r"no column \['item'\]"):
        read_ccd(tmp_path)
    pq.write_table(table.set_column(2, "split", [["dev"] * 5]), tmp_path / "block_1.parquet")
    with pytest.raises(DataError, match="5 rows are none of"):
        read_ccd(tmp_path)

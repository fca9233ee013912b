from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seqkd.data.interactions import load_interactions
from seqkd.data.splits import preset
from seqkd.errors import DataError

HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token\n"


def write(folder: Path) -> None:
    # User 0: train 0 1 2, valid 3, test 1. Lists are cut to the last 2. User 1: train 2, valid 0, test 3.
    (folder / "D.train.inter").write_text(HEADER + "0\t0 1\t2\n0\t0\t1\n")
    (folder / "D.valid.inter").write_text(HEADER + "0\t1 2\t3\n1\t2\t0\n")
    (folder / "D.test.inter").write_text(HEADER + "0\t2 3\t1\n1\t2 0\t3\n")
    (folder / "D.item2index").write_text("B\t0\nA\t1\nD\t2\nC\t3\n")
    (folder / "D.user2index").write_text("ann\t0\nbob\t1\n")
    (folder / "D.text").write_text('item_id:token\ttext:token_seq\nA\tan "apple\nB\tbread\nC\t\n')
    np.arange(12, dtype="<f4").tofile(folder / "D.feat1CLS")
    np.arange(8, dtype="<f4").tofile(folder / "D.feat3CLS")


def test_by_hand(tmp_path: Path):
    write(tmp_path)
    market = load_interactions(tmp_path)
    items = market["items"].to_list()
    assert [item["item_id"] for item in items] == ["B", "A", "D", "C"]  # index order, as the features
    assert [item["title"] for item in items] == ["bread", 'an "apple', "", ""]
    assert items[2]["text_features"] == [6.0, 7.0, 8.0] and items[2]["image_features"] == [4.0, 5.0]
    split = preset(market)
    assert [(row["user_id"], row["item_ids"]) for row in split.train] == [("ann", [1, 2, 3]), ("bob", [3])]
    assert [(row["item_ids"], row["first_target"]) for row in split.test] == [([1, 2, 3, 4, 2], 4), ([3, 1, 4], 2)]


def test_faults(tmp_path: Path):
    write(tmp_path)
    (tmp_path / "D.feat1CLS").write_bytes(b"\0" * 47)
    with pytest.raises(DataError, match="47 bytes, which is not 4 items x width x 4 bytes"):
        load_interactions(tmp_path)
    np.arange(20, dtype="<f4").tofile(tmp_path / "D.feat1CLS")  # 5 numbers for each of 4 items
    assert load_interactions(tmp_path)["items"][3]["text_features"] == [15.0, 16.0, 17.0, 18.0, 19.0]
    np.arange(18, dtype="<f4").tofile(tmp_path / "D.feat3CLS")
    with pytest.raises(DataError, match=r"D\.feat3CLS has 72 bytes, which is not 4 items x width x 4 bytes"):
        load_interactions(tmp_path)
    np.array([0, 1, 2, np.nan, 4, 5, 6, np.inf], dtype="<f4").tofile(tmp_path / "D.feat3CLS")
    with pytest.raises(DataError, match=r"D\.feat3CLS: 2 of 4 rows hold NaN or infinity .*, first row 2"):
        load_interactions(tmp_path)
    write(tmp_path)
    (tmp_path / "D.test.inter").write_text(HEADER + "0\t2 3\t1\n1\t3 0\t3\n")
    with pytest.raises(DataError, match=r"D\.test\.inter:3: the list of user '1' does not continue"):
        load_interactions(tmp_path)
    write(tmp_path)
    (tmp_path / "D.item2index").write_text("B\t0\nA\t1\nD\t1\n")
    with pytest.raises(DataError, match="every number from 0 to 2 once"):
        load_interactions(tmp_path)
    write(tmp_path)
    (tmp_path / "D.valid.inter").unlink()
    with pytest.raises(DataError, match=r"needs .*valid\.inter"):
        load_interactions(tmp_path)


def test_scientific_equals_its_own_files(data: Path):
    folder = data / "unisrec_scientific"
    market = load_interactions(folder)
    split = preset(market)
    assert (market["interactions"].num_rows, split.test.num_rows, len(split.catalogue)) == (19_712, 2_928, 1_585)
    raw = [line.split("\t")[0] for line in (folder / "Scientific.user2index").read_text().splitlines()]
    for name, part in (("valid", split.valid), ("test", split.test)):
        expected = {}
        for line in (folder / f"Scientific.{name}.inter").read_text().splitlines()[1:]:
            user, history, target = line.split("\t")
            expected[raw[int(user)]] = [int(item) + 1 for item in (*history.split(), target)]
        assert {row["user_id"]: row["item_ids"] for row in part} == expected
        assert all(row["first_target"] == len(row["item_ids"]) - 1 for row in part)
    rows = sum(len(row["item_ids"]) - 1 for row in split.train)  # one row of the train file per target
    assert rows == len((folder / "Scientific.train.inter").read_text().splitlines()) - 1
    features = np.fromfile(folder / "Scientific.feat1CLS", dtype="<f4").reshape(1_585, 512)
    assert np.array_equal(np.array(market["items"][1_000]["text_features"], dtype="f4"), features[1_000])

from __future__ import annotations

from pathlib import Path

import pytest

from seqkd.data.interactions import load_interactions
from seqkd.data.splits import leave_one_out, preset
from seqkd.errors import DataError

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = 'item_id:token\tmovie_title:token_seq\tclass:token_seq\nb\tBig "film\tDrama War\na\tAn apple\tNature\n'


def test_rows(tmp_path: Path):
    (tmp_path / "ml.inter").write_text(INTER + "1\ta\t4.5\t881250949.0\n1\tb\t3\t881250948\n")
    (tmp_path / "ml.item").write_text(ITEM)
    market = load_interactions(tmp_path)
    assert market["interactions"]["timestamp"][:] == [881250949, 881250948]
    assert market["interactions"]["rating"][:] == [4.5, 3.0]
    assert market["items"][0] | {"domain": ""} == {
        "item_id": "b",
        "domain": "",
        "title": 'Big "film',
        "brand": "",
        "categories": "Drama War",
        "description": "",
    }


def test_times_with_fractions_are_refused(tmp_path: Path):
    (tmp_path / "ml.inter").write_text(INTER + "1\ta\t4.5\t8.8e8\n")
    with pytest.raises(DataError, match=r"row 1 is the decimal number 8\.8e8"):
        load_interactions(tmp_path)


def test_parts_become_the_split(tmp_path: Path):
    for part, line in (("train", "1\ta\t5\t1\n1\tb\t5\t2\n"), ("valid", "1\tc\t5\t3\n"), ("test", "1\td\t5\t4\n")):
        (tmp_path / f"ml.{part}.inter").write_text(INTER + line)
    split = preset(load_interactions(tmp_path))
    assert [split.train[0]["item_ids"], split.valid[0]["item_ids"], split.test[0]["item_ids"]] == [
        [1, 2],
        [1, 2, 3],
        [1, 2, 3, 4],
    ]


@pytest.mark.parametrize("lines", ["u\ta b\tc\n", "u\ta\tb\nu\ta b\tc\n", "u\ta b\tc\nu\ta\tb\n"])
def test_lists_are_one_history(lines, tmp_path: Path):
    header = "session_id:token\titem_id_list:token_seq\titem_id:token\n".replace("session", "user")
    (tmp_path / "shop.inter").write_text(header + lines + "v\t\ta\n")
    market = load_interactions(tmp_path)
    split = leave_one_out(market)
    assert split.catalogue.decode(split.test[0]["item_ids"]) == ["a", "b", "c"]
    assert split.catalogue.decode(split.train[1]["item_ids"]) == ["a"]


def test_two_data_sets_in_one_folder(tmp_path: Path):
    for name in "ab":
        (tmp_path / f"{name}.inter").write_text(INTER + "1\ta\t5\t1\n")
    with pytest.raises(DataError, match="several data sets"):
        load_interactions(tmp_path)

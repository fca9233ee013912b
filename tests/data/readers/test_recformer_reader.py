from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqkd.data.interactions import load_interactions
from seqkd.data.splits import preset
from seqkd.errors import DataError

FILES = {
    "meta_data.json": {
        "B1": {"title": "one", "brand": "x", "category": "c d"},
        "B2": {"title": "two", "brand": None, "category": ""},
        "B9": {"title": "not in the map"},
    },
    "smap.json": {"B2": 0, "B1": 1, "B3": 2},
    "umap.json": {"ann": 0, "bob": 1},
    "train.json": {"0": [1, 0], "1": [2]},
    "val.json": {"0": [2], "1": []},
    "test.json": {"0": [1], "1": []},
}


def write(folder: Path, **changed: dict) -> None:
    for name, content in (FILES | {f"{name}.json": value for name, value in changed.items()}).items():
        (folder / name).write_text(json.dumps(content))


def test_by_hand(tmp_path: Path):
    write(tmp_path)
    market = load_interactions(tmp_path)
    assert market["items"]["item_id"][:] == ["B2", "B1", "B3"]
    assert market["items"][1]["title"] == "one" and market["items"][1]["categories"] == "c d"
    assert market["items"][2]["title"] == ""
    split = preset(market)
    assert [(row["user_id"], row["item_ids"]) for row in split.train] == [("ann", [2, 1]), ("bob", [3])]
    assert [row["item_ids"] for row in split.test] == [[2, 1, 3, 2]]


def test_values_of_the_wrong_kind(tmp_path: Path):
    for part, value, words in (
        ("train", {"0": 5}, r"train\.json: user '0' has 5, but needs a list"),
        ("smap", {"B1": "0"}, r"smap\.json: 'B1' has '0', but needs a whole number"),
        ("meta_data", {"B1": "title"}, r"meta_data\.json: item 'B1' has 'title'"),
    ):
        write(tmp_path, **{part: value})
        with pytest.raises(DataError, match=words):
            load_interactions(tmp_path)


def test_faults(tmp_path: Path):
    write(tmp_path, val={"0": [7]})
    with pytest.raises(DataError, match=r"val\.json: user '0' has the items \[7\]"):
        load_interactions(tmp_path)
    (tmp_path / "val.json").write_text('{"0": [2')
    with pytest.raises(DataError, match=r"val\.json is no valid JSON"):
        load_interactions(tmp_path)
    (tmp_path / "val.json").unlink()
    with pytest.raises(DataError, match=r"no \['val\.json'\]"):
        load_interactions(tmp_path)

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seqkd.data.interactions import load_interactions
from seqkd.data.splits import leave_one_out
from seqkd.errors import DataError


def test_by_hand(tmp_path: Path):
    (tmp_path / "Games.inter.json").write_text(json.dumps({"0": [2, 0, 1], "1": [1]}))
    texts = {"0": {"title": "a", "brand": "b", "categories": ["c", ["d"]], "description": ["e", "f"]}, "1": {}, "2": {}}
    (tmp_path / "Games.item.json").write_text(json.dumps(texts))
    market = load_interactions(tmp_path, domain="games")
    expected = {
        "item_id": "0",
        "domain": "games",
        "title": "a",
        "brand": "b",
        "categories": "c, d",
        "description": "e, f",
    }
    assert market["items"][0] == expected
    assert leave_one_out(market).test[0]["item_ids"] == [3, 1, 2]


def test_faults(tmp_path: Path):
    (tmp_path / "Games.inter.json").write_text(json.dumps({"0": 5}))
    with pytest.raises(DataError, match="user '0' has 5, but needs a list"):
        load_interactions(tmp_path)
    (tmp_path / "Games.inter.json").write_text(json.dumps([1]))
    with pytest.raises(DataError, match="one JSON object, but holds a list"):
        load_interactions(tmp_path)
    (tmp_path / "Games.inter.json").write_text(json.dumps({"0": [1]}))
    (tmp_path / "Games.item.json").write_text(json.dumps({"1": "a title"}))
    with pytest.raises(DataError, match="item '1' has 'a title'"):
        load_interactions(tmp_path)

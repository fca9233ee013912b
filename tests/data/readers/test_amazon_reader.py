from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from seqkd.data.interactions import load_interactions
from seqkd.errors import DataError

REVIEW_2018 = {"overall": 5.0, "verified": True, "reviewerID": "A1", "asin": "B1", "unixReviewTime": 1400000000}
REVIEW_2023 = {"rating": 4.0, "user_id": "A1", "asin": "B1x", "parent_asin": "B1", "timestamp": 1588687728923}


def write(file: Path, rows: list[dict]) -> None:
    text = "\n".join(map(json.dumps, rows)) + "\n"
    if file.suffix == ".gz":
        with gzip.open(file, "wt", encoding="utf-8") as out:
            out.write(text)
    else:
        file.write_text(text, encoding="utf-8")


def test_2018_with_gzip_repeated_reviews_and_items(tmp_path: Path):
    write(tmp_path / "Toys_5.json.gz", [REVIEW_2018, REVIEW_2018 | {"asin": "B2"}, REVIEW_2018])
    meta = {"asin": "B1", "title": "One", "brand": "Me", "category": ["Toys", "Blocks"], "description": ["a", "b"]}
    write(tmp_path / "meta_Toys.json.gz", [{"asin": "B3", "title": "cold"}, meta, meta | {"title": "again"}])
    market = load_interactions(tmp_path, domain="toys")
    assert market["interactions"]["item_id"][:] == ["B1", "B2"]  # the repetition is gone
    assert market["interactions"][0] == {
        "user_id": "A1",
        "item_id": "B1",
        "timestamp": 1400000000,
        "domain": "toys",
        "rating": 5.0,
    }
    assert market["items"]["item_id"][:] == ["B3", "B1", "B2"]
    one = {"item_id": "B1", "domain": "toys", "title": "One", "brand": "Me", "categories": "Toys, Blocks"}
    assert market["items"][1] == one | {"description": "a, b"}


def test_2023(tmp_path: Path):
    write(tmp_path / "Toys.jsonl", [REVIEW_2023])
    meta = {"parent_asin": "B1", "title": "One", "store": "Me", "categories": ["Toys"], "description": [], "price": "x"}
    write(tmp_path / "meta_Toys.jsonl", [meta])
    market = load_interactions(tmp_path)
    assert market["interactions"][0]["item_id"] == "B1"
    assert market["interactions"][0]["timestamp"] == 1588687728923
    assert market["items"][0]["brand"] == "Me" and market["items"][0]["categories"] == "Toys"
    assert load_interactions(tmp_path / "Toys.jsonl")["items"][0]["title"] == ""  # one file alone


def test_broken_lines_and_several_data_sets(tmp_path: Path):
    write(tmp_path / "Toys.jsonl", [REVIEW_2023])
    with open(tmp_path / "Toys.jsonl", "a") as file:
        file.write('{"rating": 4.0, "user')
    with pytest.raises(DataError, match=r"Toys\.jsonl:2 is no valid JSON"):
        load_interactions(tmp_path)
    write(tmp_path / "Toys.jsonl", [REVIEW_2023, {"user_id": "A1", "timestamp": 5}])
    with pytest.raises(DataError, match=r"Toys\.jsonl, column 'item_id': row 2 has no id"):
        load_interactions(tmp_path)
    write(tmp_path / "Books.jsonl", [REVIEW_2023])
    with pytest.raises(DataError, match="several data sets"):
        load_interactions(tmp_path)

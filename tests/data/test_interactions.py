from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from seqkd.data.interactions import by_domain, load_interactions, table_of
from seqkd.errors import DataError

LOG = {"user_id": ["a", "a", "b"], "item_id": [1, 2, 1], "timestamp": [10, 20, 30]}
ITEMS = {"item_id": [2, 1, 7], "title": ["two", "one", "seven"]}


def market(log: dict, items: dict | None = None, **options) -> DatasetDict:
    parts = {"interactions": Dataset(pa.table(log))}
    if items is not None:
        parts["items"] = Dataset(pa.table(items))
    return load_interactions(DatasetDict(parts), **options)


def refused(words: str, log: dict, items: dict | None = None, **options) -> None:
    with pytest.raises(DataError, match=words):
        market(log, items, **options)


def test_the_checked_market_has_the_columns_of_the_contract():
    result = market(LOG | {"rating": [1.0, 2.0, 3.0]}, ITEMS, domain="books")
    assert str(table_of(result["interactions"]).schema.remove_metadata()).split("\n") == [
        "user_id: string",
        "item_id: string",
        "timestamp: int64",
        "domain: string",
        "rating: float",
    ]
    assert result["items"][0] == {
        "item_id": "2",
        "domain": "books",
        "title": "two",
        "brand": "",
        "categories": "",
        "description": "",
    }
    assert result["items"]["item_id"][:] == ["2", "1", "7"]  # order of the table; item 7 is cold and stays


def test_without_item_table_items_come_from_interactions_in_order_of_appearance():
    result = market({"user_id": ["a"] * 4, "item_id": ["z", "b", "z", "a"], "timestamp": [4, 3, 2, 1]})
    assert result["items"]["item_id"][:] == ["z", "b", "a"]


def test_missing_column_suggests_the_closest_name_and_the_suggestion_works():
    log = {"UserID": ["a"], "item_id": ["x"], "timestamp": [1]}
    refused(r"no column 'user_id'; it has \['UserID'.*columns=\{\"user_id\": \"UserID\"\}", log)
    assert market(log, columns={"user_id": "UserID"})["interactions"][0]["user_id"] == "a"
    refused("no columns of ours", log, columns={"customer": "UserID"})


def test_missing_timestamp():
    refused("no column 'timestamp'", {"user_id": ["a"], "item_id": ["x"]})


def test_rows_in_order_can_stand_for_time():
    log = {"user_id": ["a", "b"], "item_id": ["x", "y"]}
    assert market(log, columns={"timestamp": None})["interactions"]["timestamp"][:] == [0, 1]
    preset = market(log | {"split": ["train", "validation"]})["interactions"]
    assert preset["split"][:] == ["train", "valid"] and preset["timestamp"][:] == [0, 1]
    refused("row 2 is 'holdout'", log | {"split": ["train", "holdout"]})


def test_duplicate_item_ids_are_listed():
    refused(
        r"2 item ids occur more than once, first \['1', '2'\]", LOG, {"item_id": [1, 1, 2, 2], "title": list("abcd")}
    )


def test_ids_of_different_types_meet_as_strings_and_the_mismatch_is_reported(caplog):
    with caplog.at_level(logging.WARNING):
        result = market(LOG, {"item_id": ["1", "02"], "title": ["one", "two"]})
    assert "1 of the 2 items" in caplog.text and "50.0%" in caplog.text and "'02'" in caplog.text
    assert result["items"]["item_id"][:] == ["1", "02", "2"]
    assert result["items"][2]["title"] == ""
    refused("100.0%.*Write the ids of both files in the same way", LOG, {"item_id": ["01", "02"], "title": ["", ""]})


def test_bad_ids_name_column_and_row():
    refused("'item_id' is double.*string or an integer", LOG | {"item_id": [1.0, 2.0, 3.0]})
    refused("'user_id': row 2 has no id", LOG | {"user_id": ["a", None, "b"]})
    refused("'user_id': row 3 has an empty id", LOG | {"user_id": ["a", "b", ""]})
    refused("'user_id': row 1 holds a NUL byte", LOG | {"user_id": ["a\0", "b", "c"]})
    refused("'title': row 3 holds a NUL byte", LOG, {"item_id": [1, 2, 3], "title": ["a", "b", "c\0d"]})


def test_unicode_ids_and_texts_are_kept_to_the_letter():
    strange = ["🛒", "\u202b\u05e9\u05dc\u05d5\u05dd", "e\u0301"]
    result = market(LOG | {"item_id": strange}, {"item_id": strange, "title": strange})
    assert result["interactions"]["item_id"][:] == strange
    assert result["items"]["title"][:] == strange


def test_repeated_columns_are_refused(tmp_path: Path):
    (tmp_path / "log.csv").write_text("user_id,item_id,item_id,timestamp\na,x,y,1\n")
    with pytest.raises(DataError, match=r"log\.csv has more than one column \['item_id'\]"):
        load_interactions(tmp_path / "log.csv")


def test_empty_tables_are_refused():
    refused("holds no interactions", {name: pa.array([], pa.string()) for name in LOG})
    refused("holds no items", LOG, {"item_id": pa.array([], pa.string())})


def test_lists_of_text_are_joined_and_features_checked():
    items = {"item_id": [1, 2], "categories": [["a", "b"], None], "text_features": [[1.0, 2.0], [3.0, 4.0]]}
    result = market(LOG, items)["items"]
    assert result["categories"][:] == ["a, b", ""] and result[1]["text_features"] == [3.0, 4.0]
    refused("several widths", LOG, items | {"text_features": [[1.0, 2.0], [3.0]]})
    refused("row 2 holds NaN", LOG, items | {"text_features": [[1.0, 2.0], [3.0, float("nan")]]})
    refused("They have no feature vector", LOG | {"item_id": [1, 2, 9]}, items)


def test_domains_are_separated_and_picked():
    log = {"user_id": ["a"] * 4, "item_id": [1, 1, 2, 3], "timestamp": [1, 2, 3, 4], "domain": ["x", "y", "x", "y"]}
    both = market(log)
    assert {name: part["interactions"].num_rows for name, part in by_domain(both).items()} == {"x": 2, "y": 2}
    assert by_domain(both)["y"]["items"]["item_id"][:] == ["1", "3"]
    assert market(log, domain="y")["interactions"]["item_id"][:] == ["1", "3"]
    refused("no domain 'z'; it has", log, domain="z")
    refused("no column 'domain'", log, {"item_id": [1, 2, 3], "title": list("abc")})
    one = market(LOG, ITEMS | {"domain": ["books"] * 3})  # a log without domain takes that of its items
    assert set(one["interactions"]["domain"]) == {"books"}


def test_the_folder_names_the_domain(tmp_path: Path):
    folder = tmp_path / "my books"
    folder.mkdir()
    pq.write_table(pa.table(LOG), folder / "interactions.parquet")
    assert load_interactions(folder)["interactions"][0]["domain"] == "my books"


def test_selected_rows_only(tmp_path: Path):
    chosen = Dataset(pa.table(LOG)).select([2, 0])
    assert load_interactions(chosen)["interactions"]["user_id"][:] == ["b", "a"]


def test_scientific_counts(data: Path):
    result = load_interactions(data / "amazon_scientific")
    assert result["interactions"].num_rows == 58_492 and result["items"].num_rows == 4_344
    assert len(set(result["interactions"]["user_id"][:])) == 8_317
    assert result["interactions"][0]["domain"] == "amazon_scientific"

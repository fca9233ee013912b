"""One map for items and for users: what it refuses names ids and file, and calls neither by the other's name."""

from __future__ import annotations

import json

import pytest

from seqkd.catalogue import Catalogue
from seqkd.errors import CheckpointError, DataError


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b", "a", "c", "c", "a"], r"ids must be unique.*\['a', 'c'\]. Keep each once"),
        (["a", "", "b"], "id number 2 is empty"),
    ],
)
def test_ids_that_are_refused_are_named(ids, message):
    with pytest.raises(DataError, match=message) as refused:
        Catalogue(ids)
    assert "item" not in str(refused.value)


@pytest.mark.parametrize("file", ["item_ids.json", "user_ids.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["a", "a"], r": ids must be unique.*\['a'\]"),
        (["a", ""], ": id number 2 is empty"),
        (["a", 7], " must hold a JSON list of id strings"),
        ({"a": 1}, " must hold a JSON list of id strings"),
    ],
)
def test_a_wrong_file_is_named(file, content, message, tmp_path):
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"{file}{message}") as refused:
        Catalogue.load(tmp_path / file)
    assert "item" not in str(refused.value).replace(str(tmp_path / "item_ids.json"), "")


def test_it_grows_behind_what_it_has_and_comes_back_from_a_file(tmp_path):
    users = Catalogue(["ann", "bob"]).extend(["cem"])
    users.save(tmp_path, "user_ids.json")
    assert Catalogue.load(tmp_path / "user_ids.json") == users and repr(users).startswith("Catalogue(3 ids, ")
    assert users.encode(["cem", "dea", "ann"]).tolist() == [3, 0, 1] and users.decode([3, 1]) == ["cem", "ann"]
    with pytest.raises(DataError, match=r"\['ann'\]"):
        users.extend(["ann"])

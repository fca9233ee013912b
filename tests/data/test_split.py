from __future__ import annotations

import json

import pytest

from seqkd.data.interactions import by_domain
from seqkd.data.market import synthetic_market
from seqkd.data.split import Split, combine
from seqkd.data.splits import leave_one_out, preset, temporal
from seqkd.errors import DataError


@pytest.fixture(scope="module")
def splits() -> list[Split]:
    market = synthetic_market(1, users=30, items=60, mean_length=6, max_length=12)
    return [leave_one_out(part) for part in by_domain(market).values()]


def test_saved_split_comes_back_equal(splits, tmp_path):
    splits[0].save(tmp_path / "a split")
    again = Split.load(tmp_path / "a split")
    assert again.fingerprint == splits[0].fingerprint and again.report == splits[0].report
    assert again.train.to_list() == splits[0].train.to_list() and again.catalogue == splits[0].catalogue
    assert again.train.features == splits[0].train.features
    assert (again.protocol, again.domain) == ("loo", "books")


def test_damaged_or_foreign_files_are_refused(splits, tmp_path):
    for split, name in zip(splits, ("one", "two"), strict=True):
        split.save(tmp_path / name)
    with pytest.raises(DataError, match=r"fingerprint .*split\.json says"):
        (tmp_path / "one" / "test.parquet").write_bytes((tmp_path / "two" / "test.parquet").read_bytes())
        Split.load(tmp_path / "one")
    with pytest.raises(DataError, match="no complete split"):
        (tmp_path / "two" / "train.parquet").write_bytes(b"PAR1")
        Split.load(tmp_path / "two")
    with pytest.raises(DataError, match="no complete split"):
        (tmp_path / "two" / "split.json").write_text(json.dumps({"protocol": "loo"}))
        Split.load(tmp_path / "two")


def test_combined_domains_follow_each_other(splits):
    both = combine(splits)
    assert both.domain == "books+films" and len(both.catalogue) == 120
    assert both.catalogue.item_ids[60] == "films/films-00000"
    for name in ("train", "valid", "test"):
        first, second = (getattr(split, name) for split in splits)
        rows = getattr(both, name)
        assert rows[len(first)]["item_ids"] == [item + 60 for item in second[0]["item_ids"]]
        assert rows[len(first)]["user_id"] == "films/" + second[0]["user_id"]
        queries = 0  # ids run on without a gap
        for row in rows:
            assert row["query_start"] == queries
            queries += len(row["item_ids"]) - row["first_target"] + 1
    assert both.report["films/users"] == 30


def test_a_split_without_a_part(tmp_path):
    market = by_domain(synthetic_market(1, users=30, items=60, mean_length=6, max_length=12))["books"]
    names = ["train"] * (market["interactions"].num_rows - 1) + ["test"]
    market["interactions"] = market["interactions"].add_column("split", names)
    split = preset(market)
    assert (split.valid.num_rows, split.test.num_rows) == (0, 1)
    split.save(tmp_path)
    assert Split.load(tmp_path).fingerprint == split.fingerprint
    assert combine([split]).valid.num_rows == 0


def test_domains_and_protocols_must_fit(splits):
    with pytest.raises(DataError, match="different domains and one protocol"):
        combine([splits[0], splits[0]])
    other = temporal(by_domain(synthetic_market(1, users=30, items=60, mean_length=6, max_length=12))["films"])
    with pytest.raises(DataError, match=r"\['loo', 'temporal'\]"):
        combine([splits[0], other])


def test_fingerprint_depends_on_rows_only(splits):
    assert len({splits[0].fingerprint, splits[1].fingerprint, combine(splits).fingerprint}) == 3
    market = synthetic_market(1, users=30, items=60, mean_length=6, max_length=12)
    assert leave_one_out(by_domain(market)["books"]).fingerprint == splits[0].fingerprint
    assert leave_one_out(by_domain(market)["books"], max_length=5).fingerprint != splits[0].fingerprint

from __future__ import annotations

import pyarrow as pa
import pytest
from datasets import Dataset

from seqkd.data.interactions import load_interactions
from seqkd.data.kcore import k_core
from seqkd.errors import DataError


def market(pairs: list[str]):
    columns = {"user_id": [pair[0] for pair in pairs], "item_id": [pair[1] for pair in pairs]}
    return load_interactions(Dataset(pa.table(columns | {"timestamp": list(range(len(pairs)))})))


def test_dropping_goes_on_until_nothing_falls():
    # item z falls (1 time), then user c (1 left), then item y (1 left), then user b keeps 1: only then the core of a, d
    core = k_core(market(["aw", "ax", "dw", "dx", "bw", "by", "cy", "cz"]), 2)
    pairs = [row["user_id"] + row["item_id"] for row in core["interactions"]]
    assert pairs == ["aw", "ax", "dw", "dx"]
    assert core["items"]["item_id"][:] == ["w", "x"]


def test_an_empty_core_is_an_error():
    with pytest.raises(DataError, match="the 3-core of 2 interactions is empty"):
        k_core(market(["ax", "bx"]), 3)


def test_one_core_changes_nothing():
    assert k_core(market(["ax", "bx", "by"]), 1)["interactions"].num_rows == 3


def test_scientific_is_its_own_5_core(data):
    log = load_interactions(data / "amazon_scientific")
    core = k_core(log, 5)
    assert core["interactions"].num_rows <= log["interactions"].num_rows
    counts = {}
    for item in core["interactions"]["item_id"][:]:
        counts[item] = counts.get(item, 0) + 1
    assert min(counts.values()) >= 5

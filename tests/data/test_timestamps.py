from __future__ import annotations

import datetime

import pyarrow as pa
import pytest
from datasets import Dataset

from seqkd.data.interactions import load_interactions
from seqkd.errors import DataError

LOG = {"user_id": ["a", "a", "b"], "item_id": ["1", "2", "1"]}


def times(values) -> list[int]:
    return load_interactions(Dataset(pa.table(LOG | {"timestamp": values})))["interactions"]["timestamp"][:]


def refused(words: str, values) -> None:
    with pytest.raises(DataError, match=words):
        times(values)


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_floats_are_refused(kind):
    refused("timestamp.* floats lose seconds.*int64", pa.array([1.0, 2.0, 3.0], kind))


def test_decimal_text_is_refused():
    refused(r"row 2 is the decimal number 2\.5", ["1", "2.5", "3"])
    refused("row 1 is the decimal number 1e9", ["1e9", "2", "3"])


def test_dates_and_iso_strings_become_microseconds():
    moment = datetime.datetime(2020, 1, 1, 0, 0, 1)
    values: list[pa.Array] = [
        pa.array([moment] * 3),
        pa.array(["2020-01-01T00:00:01"] * 3),
        pa.array(["2020-01-01 00:00:01Z"] * 3),
        pa.array([moment] * 3, pa.timestamp("s", "UTC")),
    ]
    for value in values:
        assert times(value) == [1_577_836_801_000_000] * 3
    days = times(["2020-01-01", "2020-01-02", "2020-01-03"])
    assert days[1] - days[0] == 86_400_000_000
    assert times(pa.array([0, 1, 2], pa.date32())) == [0, 86_400_000_000, 2 * 86_400_000_000]


def test_missing_and_meaningless_times_name_the_row():
    refused("row 2 has no time", pa.array([1, None, 3]))
    refused("row 3 has no time", pa.array([1, 2, None], pa.timestamp("us")))
    refused("row 2 is 'soon'", ["2020-01-01", "soon", "2020-01-02"])
    refused("mixes numbers", ["5", "2020-01-01", "2020-01-02"])
    refused("with and without a time zone", ["2020-01-01T00:00:00", "2020-01-01T00:00:00Z", "2020-01-02T00:00:00"])


def test_large_integers_stay_exact():
    values = [2**53 + 1, 2**53 + 2, 2**53 + 3]  # a float64 would merge the first two
    assert times(values) == values == times([str(value) for value in values])

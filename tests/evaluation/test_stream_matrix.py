"""The matrix over all blocks of a stream and its averages, against the authors' own numbers."""

from __future__ import annotations

import json
from math import isnan, nan
from pathlib import Path

import pytest

from seqkd.errors import DataError
from seqkd.evaluation.stream_matrix import StreamMatrix, matrix_table, stream_table

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "ccd_stream_metrics.json").read_text())


@pytest.mark.parametrize("name", ["toy_stream_test_R3", "hand_matrix_6_blocks"])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("current", [True, False])
def test_averages_as_released(name, first, current):
    golden = GOLDEN["LA_RA_Hmean"][name]
    matrix = StreamMatrix("recall@3", golden["a[k][i]"])
    expected = golden[f"blocks {first}..k, RA {'incl' if current else 'excl'}. current"]
    for k, wanted in enumerate(expected):
        told = {
            "LA": matrix.la(k, first),
            "RA": matrix.ra(k, first, current),
            "H_mean": matrix.h_mean(k, first, current),
        }
        if wanted is None:
            assert all(map(isnan, told.values()))
        elif k == first and not current:  # nothing is retained yet: the release's 1e-8 makes 0 of it
            assert told["LA"] == wanted["LA"] and isnan(told["RA"]) and isnan(told["H_mean"])
        else:
            assert told == pytest.approx(wanted, abs=5.1e-5)


def test_nothing_is_rounded():
    matrix = StreamMatrix("recall@20", [[0.1], [1 / 3, 1 / 7]])
    assert matrix.la(1) == (0.1 + 1 / 7) / 2 and matrix.ra(1) == (1 / 3 + 1 / 7) / 2
    assert matrix.h_mean(1) == pytest.approx(2 / (1 / matrix.la(1) + 1 / matrix.ra(1)), rel=1e-15)
    assert StreamMatrix("recall@20", [[0.0]]).h_mean(0) == 0


def test_a_block_that_was_not_measured():
    matrix = StreamMatrix("recall@20", [[0.1], [0.1, nan], [0.1, nan, 0.2]])
    assert (
        matrix.ra(0) == 0.1 and isnan(matrix.ra(2)) and isnan(matrix.h_mean(2)) and matrix.ra(1, current=False) == 0.1
    )
    assert [cell.strip() for cell in matrix_table([matrix]).splitlines()[-1].split("|")[1:-1]] == [
        "after D2", "0.1000", "-", "0.2000"
    ]  # fmt: skip


def test_json():
    matrix = StreamMatrix("ndcg@20", [[1 / 3], [0.1, nan]])
    text = matrix.to_json()
    assert json.loads(text) == {"metric": "ndcg@20", "rows": [[1 / 3], [0.1, None]]}
    back = StreamMatrix.from_json(text)
    assert back.rows[0] == [1 / 3] and isnan(back.rows[1][1]) and back.to_json() == text
    for wrong in ("{", "[]", '{"metric": "a"}', '{"metric": "a", "rows": [["x"]]}', '{"metric": "a", "rows": [3]}'):
        with pytest.raises(DataError, match="no stream matrix"):
            StreamMatrix.from_json(wrong)


def test_refused_rows():
    matrix = StreamMatrix("recall@20", [[0.1]])
    with pytest.raises(DataError, match="after block 1 a model is measured on blocks 0 to 1, 2 numbers, got 3"):
        matrix.add([0.1, 0.1, 0.1])
    with pytest.raises(DataError, match="not finite"):
        matrix.add([0.1, float("inf")])
    assert len(matrix) == 1
    for k, first in ((1, 0), (-1, 0), (0, -1)):
        with pytest.raises(DataError, match=f"blocks 0 to 0, but block {k} was asked for, counted from {first}"):
            matrix.ra(k, first)


# ---- several seeds and runs -----------------------------------------------------------------------------------------

SEEDS = [StreamMatrix("recall@20", [[0.10], [0.08, 0.12]]), StreamMatrix("recall@20", [[0.14], [0.10, 0.16]])]
ALONE = [StreamMatrix("recall@20", [[0.2], [0.1, 0.3]])]


def cells(text):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_a_table_of_the_matrix():
    header, _, *body = cells(matrix_table(SEEDS))
    assert header == ["Recall@20", "D0", "D1"]
    # deviations of .02 and .01 each, e.g. sqrt(2 * .0004 / 1)
    assert body == [["after D0", "0.1200 ± 0.0283", ""], ["after D1", "0.0900 ± 0.0141", "0.1400 ± 0.0283"]]


def test_a_table_of_runs_with_both_conventions():
    text = stream_table({"ours": SEEDS, "frozen": ALONE})
    assert "Recall@20 after each block, mean ± standard deviation over 1 to 2 seeds; RA and H count the block" in text
    table = cells(text)
    assert table[0] == ["run", "", "D0", "D1"]
    # LA after D1: .11 and .15; RA: .10 and .13; each H of its own seed
    hs = [2 * 0.11 * 0.10 / 0.21, 2 * 0.15 * 0.13 / 0.28]
    mean, spread = sum(hs) / 2, abs(hs[1] - hs[0]) / 2**0.5
    assert table[2:5] == [
        ["ours", "LA", "0.1200 ± 0.0283", "0.1300 ± 0.0283"],
        ["ours", "RA", "0.1200 ± 0.0283", "0.1150 ± 0.0212"],
        ["ours", "H", "0.1200 ± 0.0283", f"{mean:.4f} ± {spread:.4f}"],
    ]
    assert table[5:8] == [
        ["frozen", "LA", "0.2000", "0.2500"],
        ["frozen", "RA", "0.2000", "0.2000"],
        ["frozen", "H", "0.2000", "0.2222"],
    ]
    assert "Without the base block (B = 1):" in text
    assert table[8] == ["run", "", "D1"] and table[10] == ["ours", "LA", "0.1400 ± 0.0283"]
    before = cells(stream_table({"frozen": ALONE}, current=False))
    assert before[2:5] == [
        ["frozen", "LA", "0.2000", "0.2500"],
        ["frozen", "RA", "-", "0.1000"],
        ["frozen", "H", "-", "0.1429"],
    ]


def test_a_stream_of_one_block():
    text = stream_table({"ours": [StreamMatrix("recall@20", [[0.1]])]})
    assert "one seed, so the spread is not known" in text and "B = 1" not in text


def test_what_cannot_be_compared():
    with pytest.raises(DataError, match=r"one seed at least, got \{'ours': 0\}"):
        stream_table({"ours": []})
    with pytest.raises(DataError, match="one seed at least"):
        stream_table({})
    with pytest.raises(DataError, match="'two' has ndcg@20 of 2 blocks, another run or seed recall@20 of 2"):
        stream_table({"one": SEEDS, "two": [StreamMatrix("ndcg@20", ALONE[0].rows)]})
    with pytest.raises(DataError, match="has recall@20 of 1 blocks"):
        matrix_table([SEEDS[0], StreamMatrix("recall@20", [[0.1]])])

"""Metrics of each block on disk become the matrices."""

from __future__ import annotations

import json
from math import isnan, nan

import pytest

from seqkd.continual.measured import FILE_NAME, matrices, write_metrics
from seqkd.errors import ConfigError


@pytest.fixture
def folders(tmp_path):
    made = [tmp_path / "0", tmp_path / "1"]
    for folder, rows in zip(made, ([(0.5, nan)], [(0.25, 0.1), (1.0, nan)]), strict=True):
        folder.mkdir()
        told = [{"recall@5": whole, "new_users/recall@5": new} for whole, new in rows]
        write_metrics(folder, {"student": told, "teachers/a": [{**row, "recall@5": 0.0} for row in told]})
    return made


def test_each_block_is_a_row(folders):
    told = matrices(folders, "recall@5")
    assert list(told) == ["student", "teachers/a"]
    assert told["student"].rows == [[0.5], [0.25, 1.0]] and told["teachers/a"].rows == [[0.0], [0.0, 0.0]]
    assert told["student"].la(1) == 0.75 and told["student"].ra(1) == 0.625


def test_nobody_to_ask_is_null_in_the_file_and_nan_in_the_matrix(folders):
    assert json.loads((folders[0] / FILE_NAME).read_text())["student"][0]["new_users/recall@5"] is None
    rows = matrices(folders, "new_users/recall@5")["student"].rows
    assert isnan(rows[0][0]) and rows[1][0] == 0.1 and isnan(rows[1][1])


def test_what_was_not_measured_is_refused_by_name(folders):
    with pytest.raises(
        ConfigError, match=r"'recall@7' was not measured; there are \['new_users/recall@5', 'recall@5'\]"
    ):
        matrices(folders, "recall@7")

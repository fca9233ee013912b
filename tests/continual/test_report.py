"""What a run says of itself."""

from __future__ import annotations

import json
from math import nan

from seqkd.continual import report
from seqkd.continual.report import cost_table, slice_table, write_report
from seqkd.evaluation.stream_matrix import StreamMatrix

ROWS = [[0.5], [0.25, 1.0], [0.0, 0.5, 0.75]]


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]


def test_slices_are_the_diagonal_after_the_base():
    seeds = [
        StreamMatrix("new_users/recall@5", ROWS),
        StreamMatrix("new_users/recall@5", [[0.5], [0.0, 0.5], [0, 0, 0.25]]),
    ]
    told = cells(slice_table({"new_users/recall@5": {"student": seeds}}))
    assert told[0] == ["run", "slice", "D1", "D2"]
    assert told[2] == ["student", "new_users/recall@5", "0.7500 ± 0.3536", "0.5000 ± 0.3536"]


def test_a_slice_without_anybody_is_no_number():
    told = cells(
        slice_table({"new_items/recall@5": {"student": [StreamMatrix("r", [[nan], [nan, nan], [0, 0, 0.5]])]}})
    )
    assert told[2][2:] == ["-", "0.5000"]


def test_costs_have_a_row_for_each_stage():
    stage = {"seconds": 1.25, "cpu_seconds": 0.5, "peak_memory_mb": 1234, "bytes_written": 2_500_000}
    told = cells(cost_table([[("block", stage)], [("student", {**stage, "epochs": 7})]]))
    assert told[2] == ["D0", "block", "1.2", "0.5", "1,234", "2.50", ""]
    assert told[3][:2] == ["D1", "student"] and told[3][-1] == "7"


def test_a_report_is_markdown_numbers_and_from_two_blocks_on_a_figure(tmp_path, monkeypatch):
    runs = {"ours": [StreamMatrix("recall@5", ROWS)], "other": [StreamMatrix("recall@5", ROWS)]}
    text = write_report(tmp_path / "a", runs, {"ours": [[]]}, heat=["ours"], title="The title")
    assert (tmp_path / "a" / "report.md").read_text(encoding="utf-8") == text and text.startswith("# The title\n")
    assert "## ours: a[k][i]" in text and "## other: a[k][i]" not in text
    told = json.loads((tmp_path / "a" / "stream.json").read_text())
    assert told["other"] == [{"metric": "recall@5", "rows": ROWS}]
    assert (tmp_path / "a" / "stream.png").stat().st_size > 1000
    many = {f"run {number}": runs["ours"] for number in range(10)}
    monkeypatch.setattr(report, "stream_figure", lambda runs, path, **how: drawn.append((list(runs), how["note"])))
    drawn = []
    write_report(tmp_path / "a", many, {})
    write_report(tmp_path / "a", runs, {})
    first = [f"run {number}" for number in range(8)]
    assert drawn == [(first, "The first 8 of 10 runs; report.md has all."), (["ours", "other"], "")]
    write_report(tmp_path / "b", {"ours": [StreamMatrix("recall@5", ROWS[:1])]}, {})
    assert not (tmp_path / "b" / "stream.png").exists()

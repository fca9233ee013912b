"""The lines of the slice figure stand where their numbers are, and its words do not cover each other."""

from __future__ import annotations

import pytest

from seqkd.errors import DataError
from seqkd.evaluation.slices import HISTORY_LENGTH, ITEM_FREQUENCY, Slice
from seqkd.figures import slices as module
from seqkd.figures.labels import overlap


def run(value):
    cut = [(HISTORY_LENGTH, "1-2", 90), (HISTORY_LENGTH, "3+", 10), (ITEM_FREQUENCY, "0 (cold)", 0)]
    parts = [Slice(kind, label, count, {"ndcg@10": value} if count else {}) for kind, label, count in cut]
    return [*parts, Slice(ITEM_FREQUENCY, "1+", 1234, {"ndcg@10": 2 * value})]


def test_figure(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    made = []
    new = module.new_figure
    monkeypatch.setattr(module, "new_figure", lambda *size: made.append(new(*size)) or made[0])
    models = {"student distilled, from the trio $x$": [run(0.1), run(0.3)], "alone": [run(0.05), run(0.05)]}
    module.slice_figure(models, tmp_path / "slices.png", title="books: NDCG@10, " + "a long title " * 6)
    assert (tmp_path / "slices.png").read_bytes()[:4] == b"\x89PNG"
    left, right = made[0].axes
    assert [text.get_text() for text in left.get_xticklabels()] == ["1-2\n90", "3+\n10"]
    assert [text.get_text() for text in right.get_xticklabels()] == ["0 (cold)\n0", "1+\n1,234"]
    taught, alone = left.containers
    assert taught.lines[0].get_ydata() == pytest.approx([0.2, 0.2]) and alone.lines[0].get_ydata()[0] == 0.05
    assert right.containers[0].lines[0].get_ydata() == pytest.approx([0.4])  # no point where there is no query
    low, high = taught.lines[2][0].get_segments()[0][:, 1]
    assert high - low == pytest.approx(2 * 0.02**0.5)  # two deviations of sqrt(2 * .01 / 1)
    words = [made[0]._suptitle, made[0]._supxlabel, made[0].legends[0], left.xaxis.label, right.xaxis.label]
    boxes = [word.get_window_extent().extents for word in words]
    assert all(overlap(a, b) == 0 for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_too_many_models(tmp_path):
    with pytest.raises(DataError, match="9 models are too many"):
        module.slice_figure({f"model {i}": [run(0.1)] for i in range(9)}, tmp_path / "x.png")

"""The numbers of the stream figure stand in their cells and on their lines, and its words do not cover each other."""

from __future__ import annotations

from math import nan

import pytest

from seqkd.errors import DataError
from seqkd.evaluation.stream_matrix import StreamMatrix
from seqkd.figures import stream as module
from seqkd.figures.labels import overlap


def run(*shifts, last=0.05):
    return [StreamMatrix("recall@20", [[0.1 + s], [0.06 + s, 0.08 + s], [0.04, 0.07, last + s]]) for s in shifts]


RUNS = {"teacher $x$, the wide one": run(0.01), "student": run(0.0, 0.02), "fine-tune with a long name": run(-0.01)}


@pytest.fixture
def drawn(monkeypatch):
    pytest.importorskip("matplotlib")
    made = []
    new = module.new_figure
    monkeypatch.setattr(module, "new_figure", lambda *size: made.append(new(*size)) or made[-1])
    return made


def test_figure(tmp_path, drawn):
    module.stream_figure(RUNS, tmp_path / "stream.png", title="yelp, " + "a long title " * 6)
    assert (tmp_path / "stream.png").read_bytes()[:4] == b"\x89PNG"
    teacher, student, lines = drawn[0].axes
    # the student's are means of two seeds
    assert [text.get_text() for text in student.texts] == [".1100", ".0700", ".0900", ".0400", ".0700", ".0600"]
    assert [text.get_position() for text in student.texts][:3] == [(0, 0), (0, 1), (1, 1)]  # column i, row k
    assert teacher.texts[0].get_text() == ".1100" and teacher.get_title("left") == r"teacher \$x\$, the wide one"
    shades = [axes.images[0].get_array() for axes in (teacher, student)]
    assert shades[0][0, 0] == shades[1][0, 0] == pytest.approx(module.DARKEST)  # .11 in both: one scale
    assert shades[1][2, 0] == pytest.approx(module.LIGHTEST) and shades[1].mask[0, 1]
    curves = lines.containers
    # after D1: LA .09 and .11, RA .07 and .09
    low, high = 2 * 0.09 * 0.07 / 0.16, 2 * 0.11 * 0.09 / 0.20
    assert curves[1].lines[0].get_ydata()[1] == pytest.approx((low + high) / 2)
    bottom, top = curves[1].lines[2][0].get_segments()[1][:, 1]
    assert top - bottom == pytest.approx(2**0.5 * (high - low))  # two deviations of (high - low) / sqrt(2)
    assert not curves[0].lines[2] and len({curve.lines[0].get_linestyle() for curve in curves}) == 3
    figure = drawn[0]
    words = [figure._suptitle, figure._supxlabel, figure.subfigs[1].legends[0], lines.xaxis.label, lines.yaxis.label]
    for axes in (teacher, student):
        words += [*axes.texts, *axes.get_xticklabels(), axes._left_title, axes.xaxis.label]
    boxes = [word.get_window_extent().extents for word in words]
    assert all(overlap(a, b) == 0 for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    caption = figure._supxlabel.get_text().replace("\n", " ")
    assert "over all blocks. Mean ± standard deviation over 1 to 2 seeds (bars)." in caption


def test_one_heat_map_and_no_base_block(tmp_path, drawn):
    module.stream_figure(RUNS, tmp_path / "stream.svg", heat=["student"], first=1)
    student, lines = drawn[0].axes
    assert student.get_title("left") == "student"
    # LA of D1 alone: .08, .10; RA the same
    assert lines.containers[1].lines[0].get_ydata()[0] == pytest.approx(0.09)
    assert [text.get_text() for text in lines.get_xticklabels()] == ["D1", "D2"]
    assert "over blocks from D1 on" in drawn[0]._supxlabel.get_text().replace("\n", " ")


def test_what_was_not_measured_is_a_dash(tmp_path, drawn):
    module.stream_figure({"ours": run(0.0, last=nan)}, tmp_path / "stream.png")
    heat, lines = drawn[0].axes
    assert [text.get_text() for text in heat.texts][-1] == "-"
    assert len(lines.containers[0].lines[0].get_ydata()) == 2


def test_refused(tmp_path):
    path = tmp_path / "x.png"
    with pytest.raises(DataError, match="9 runs are too many"):
        module.stream_figure({f"run {i}": run(0.1) for i in range(9)}, path)
    for heat in (["nobody"], [], ["student"] * 4):
        with pytest.raises(DataError, match="heat must name one to three of the runs"):
            module.stream_figure(RUNS, path, heat=heat)
    with pytest.raises(DataError, match="cannot count from block 3 on"):
        module.stream_figure(RUNS, path, first=3)
    with pytest.raises(DataError, match="one seed at least"):
        module.stream_figure({}, path)

"""The figure is drawn, its labels do not cover each other, and it asks for matplotlib kindly."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest

from seqkd.errors import ConfigError, DataError
from seqkd.evaluation.results import Result
from seqkd.figures import cost as module
from seqkd.figures import style as figure_style
from seqkd.figures.labels import overlap

MODELS = [
    ("UniSRec, two domains", "teacher", 0.0702, 38.2, 0.52),
    ("SASRec 128", "teacher", 0.0675, 7.1, 0.21),
    ("SASRec 128 again", "teacher", 0.0676, 7.1, 0.21),
    ("student alone", "student", 0.0668, 2.1, 0.082),
    ("CKD-MDSR $x^2$", "distilled", 0.0671, 2.1, 0.083),
]
RESULTS = [
    Result(
        name,
        role,
        domain,
        "synthetic",
        seed,
        "test",
        "loo",
        "masked",
        {"ndcg@10": value + 0.001 * seed},
        9,
        9,
        9,
        mb,
        ms,
    )
    for domain in ("books", "films")
    for name, role, value, mb, ms in MODELS
    for seed in (0, 1)
]


def test_figure_is_saved_and_labels_are_apart(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    panels = []
    place = module.place_labels
    monkeypatch.setattr(module, "place_labels", lambda axes, labels: (place(axes, labels), panels.append(axes)))
    module.cost_figure(RESULTS, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
    assert len(panels) == 4
    for axes in panels:
        texts = [text for text in axes.texts if text.get_text()]
        assert sorted(text.get_text().replace("\\", "") for text in texts) == sorted(name for name, *_ in MODELS)
        boxes = [tuple(text.get_window_extent().extents) for text in texts]
        assert all(overlap(a, b) == 0 for a, b in combinations(boxes, 2))
        assert all(overlap(box, axes.get_window_extent().extents) == pytest.approx(overlap(box, box)) for box in boxes)
        figure = axes.figure
    assert figure.get_suptitle() == "NDCG@10 against the cost of serving\ntest, leave-one-out, history masked"
    title, legend = figure._suptitle.get_window_extent(), figure.legends[0].get_window_extent()
    assert overlap(title.extents, legend.extents) == 0
    caption = figure._supxlabel.get_text()
    assert "leave-one-out" in caption and "history masked" in caption and "synthetic" in caption
    assert axes.get_xscale() == "log" and panels[0].get_title("left") == "books (synthetic)"
    assert "distilled against alone: +0.4" in panels[1].get_title(
        "right"
    )  # .0671 / .0668 = 1.0045, .0681 / .0678 = 1.0044


@pytest.mark.parametrize(
    ("protocol", "title"),
    [
        ("temporal", "global temporal split"),
        ("preset", "the split that the data brings"),
        ("ratio", "random 60/20/20 of each user, as sets"),
    ],
)
def test_the_title_names_the_protocol(protocol, title, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    drawn = []
    place = module.place_labels
    monkeypatch.setattr(module, "place_labels", lambda axes, labels: (place(axes, labels), drawn.append(axes.figure)))
    module.cost_figure([replace(RESULTS[0], protocol=protocol)], tmp_path / "figure.png")
    assert drawn[0].get_suptitle() == f"NDCG@10 against the cost of serving\ntest, {title}, history masked"


def test_close_points_are_named_in_the_clear(tmp_path, monkeypatch):
    """Three teachers side by side with long error bars: names stand off, outside of bars, with a line."""
    pytest.importorskip("matplotlib")
    panels = []
    place = module.place_labels
    monkeypatch.setattr(
        module, "place_labels", lambda axes, labels: (place(axes, labels), panels.append((axes, labels)))
    )
    costs = {"teacher unisrec": 30.0, "teacher recformer": 39.0, "teacher unim2rec": 48.0, "student alone": 2.1}
    results = [
        replace(RESULTS[0], model=name, megabytes=mb, seed=seed, metrics={"ndcg@10": 0.0696 + 0.003 * seed})
        for name, mb in costs.items()
        for seed in (0, 1)
    ]
    module.cost_figure(results, tmp_path / "figure.png")
    for axes, labels in panels:
        texts = [text for text in axes.texts if text.get_text()]
        boxes = [text.get_window_extent().extents for text in texts]
        for label in labels:
            (left, low), (right, high) = axes.transData.transform(
                [(label.x, label.y - label.dy), (label.x, label.y + label.dy)]
            )
            assert all(overlap(box, (left - 1, low, right + 1, high)) == 0 for box in boxes)
        assert all(overlap(box, axes.get_window_extent().extents) == pytest.approx(overlap(box, box)) for box in boxes)


def test_overlap():
    assert overlap((0, 0, 2, 2), (1, 1, 5, 5)) == 1 and overlap((0, 0, 1, 1), (1, 0, 2, 1)) == 0


def test_what_cannot_be_drawn(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    with pytest.raises(DataError, match="these results have 2"):
        module.cost_figure([RESULTS[0], replace(RESULTS[0], split="valid")], tmp_path / "x.png")
    with pytest.raises(DataError, match="mrr@10 was not measured"):
        module.cost_figure(RESULTS, tmp_path / "x.png", "mrr@10")
    monkeypatch.setattr(figure_style, "Figure", None)
    with pytest.raises(ConfigError, match=r'pip install "seqkd\[plots\]"'):
        module.cost_figure(RESULTS, tmp_path / "x.png")

"""Each bar is shared out among the teachers as the results say; its numbers stay inside."""

from __future__ import annotations

import pytest

from seqkd.errors import DataError
from seqkd.evaluation.results import Result
from seqkd.figures import weights as module
from seqkd.figures.labels import overlap
from seqkd.teaching.teacher_weights import STATISTICS


def result(model, domain, shares, seed=0, history="masked"):
    weights = {teacher: dict.fromkeys(STATISTICS, share) for teacher, share in shares.items()}
    metrics = {"ndcg@10": 0.1}
    return Result(model, "distilled", domain, "real", seed, "test", "loo", history, metrics, 9, 9, 9, 1, 1, weights)


TRIO = [{"a teacher of long name": 0.5, "recformer": 0.48, "unim2rec": 0.02}, {"a teacher of long name": 0.7}]
TRIO[1] |= {"recformer": 0.28, "unim2rec": 0.02}


@pytest.mark.parametrize("domains", [["books"], ["books", "films"]])
def test_figure(tmp_path, monkeypatch, domains):
    pytest.importorskip("matplotlib")
    made = []
    new = module.new_figure
    monkeypatch.setattr(module, "new_figure", lambda *size: made.append(new(*size)) or made[0])
    results = [result("trio", d, TRIO[s], s, h) for d in domains for s in (0, 1) for h in ("masked", "unmasked")]
    results += [result("pair", domains[0], {"recformer": 0.25, "unim2rec": 0.75})]
    module.weights_figure([*results, result("one teacher", "books", {})], tmp_path / "weights.png")
    assert (tmp_path / "weights.png").read_bytes()[:4] == b"\x89PNG"
    titles = {axes.get_title("left"): axes for axes in made[0].axes if axes.axison}
    assert sorted(titles) == sorted(["pair, books", *(f"trio, {domain}" for domain in domains)])
    axes = titles["trio, books"]
    widths = [bar.get_width() for bar in axes.patches if bar.get_width()]
    assert widths == pytest.approx([0.6] * 4 + [0.38] * 4 + [0.02] * 4)
    assert [bar.get_x() for bar in axes.patches[4:8]] == pytest.approx([0.6] * 4)
    numbers = [text.get_text() for text in axes.texts]
    assert numbers == ["0.60 ± 0.14"] * 4 + ["0.38 ± 0.14"] * 4  # .1 * sqrt(2); no room for 0.02
    for text, bar in zip(axes.texts, axes.patches, strict=False):
        inside, whole = text.get_window_extent().extents, bar.get_window_extent().extents
        assert overlap(inside, whole) == pytest.approx(overlap(inside, inside))
    legend = made[0].legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["a teacher of long name", "recformer", "unim2rec"]
    boxes = [part.get_window_extent().extents for part in (made[0]._suptitle, legend, axes.title)]
    boxes.append(axes._left_title.get_window_extent().extents)
    assert all(overlap(a, b) == 0 for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_what_cannot_be_drawn(tmp_path):
    with pytest.raises(DataError, match="no result tells how teachers were weighed"):
        module.weights_figure([result("one teacher", "books", {})], tmp_path / "x.png")
    with pytest.raises(DataError, match="9 teachers are too many"):
        module.weights_figure([result("many", "books", {f"t{i}": 0.1 for i in range(9)})], tmp_path / "x.png")

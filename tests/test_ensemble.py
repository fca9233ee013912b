from __future__ import annotations

import math

import pytest
import torch

from seqkd.catalogue import Catalogue
from seqkd.ensemble import assemble, ensemble
from seqkd.errors import KnowledgeError
from seqkd.knowledge import Knowledge, Source

ITEMS = Catalogue("abcdefgh")
LOW = torch.finfo(torch.float32).min


def made(topk, scores, name="t", split="s", dtype=torch.float32) -> Knowledge:
    tables = {"query_topk": torch.tensor(topk, dtype=torch.int32), "query_scores": torch.tensor(scores, dtype=dtype)}
    return Knowledge.from_tables(tables, source=Source(name, f"r-{name}", split, "train"), catalogue=ITEMS)


def test_two_teachers_by_hand():
    # teacher one: a 3/4, b 1/4; teacher two: b 1/2, c 1/2; weights 1 : 3
    one = made([[1, 2], [1, 2], [0, 0], [3, 0]], [[math.log(3), 0]] * 2 + [[LOW, LOW], [5, LOW]], "one")
    two = made([[2, 3], [0, 0], [0, 0], [3, 4]], [[7, 7], [LOW, LOW], [LOW, LOW], [0, 0]], "two")
    both = ensemble({"one": one, "two": two}, {"two": 3, "one": 1}, k=3)
    topk, scores = both.table("query_topk").tolist(), both.table("query_scores").exp().tolist()
    # b: 1/16 + 6/16, c: 6/16, a: 3/16; where two is silent, one speaks alone; where both are, nobody
    assert topk == [[2, 3, 1], [1, 2, 0], [0, 0, 0], [3, 4, 0]]
    for found, expected in zip(
        scores, [[7 / 16, 6 / 16, 3 / 16], [3 / 4, 1 / 4, 0], [0] * 3, [5 / 8, 3 / 8, 0]], strict=True
    ):
        assert found == pytest.approx(expected, abs=1e-6)
    assert both.source.teacher == "ensemble(one, two)" and both.source.options["weights"] == [0.25, 0.75]
    assert both.source.split_fingerprint == "s" and both.source.part == "train"
    both.check(catalogue=ITEMS)


@pytest.mark.parametrize("tau", [0.5, 2.0])
@pytest.mark.parametrize("k", [2, 5, None, 30])
def test_three_random_teachers_match_a_slow_loop(tau, k):
    generator = torch.Generator().manual_seed(1)
    teachers, weights = [], [1.0, 2.0, 5.0]
    for name, m in zip("xyz", [3, 4, 2], strict=True):
        topk = torch.stack([torch.randperm(8, generator=generator)[:m] + 1 for _ in range(20)])
        scores = torch.randn(20, m, generator=generator).sort(dim=1, descending=True).values * 5
        topk[::7, -1], scores[::7, -1] = 0, LOW
        teachers.append(made(topk.tolist(), scores.tolist(), name))
    found = ensemble(teachers, weights, tau=tau, k=k)
    width = k or 4
    for query in range(20):
        p = dict.fromkeys(range(1, 9), 0.0)
        for teacher, weight in zip(teachers, weights, strict=True):
            items = teacher.table("query_topk")[query].tolist()
            exps = [
                math.exp(s / tau) if i else 0.0
                for i, s in zip(items, teacher.table("query_scores")[query].tolist(), strict=True)
            ]
            for item, value in zip(items, exps, strict=True):
                if item:
                    p[item] += weight / 8 * value / sum(exps)
        ranked = [item for item in sorted(p, key=p.__getitem__, reverse=True) if p[item] > 0][:width]
        topk, scores = found.table("query_topk")[query].tolist(), found.table("query_scores")[query]
        assert topk == ranked + [0] * (width - len(ranked))
        assert scores[: len(ranked)].exp().tolist() == pytest.approx([p[item] for item in ranked], rel=1e-4)
        assert (scores[len(ranked) :] == LOW).all()


def test_large_half_precision_scores_stay_finite():
    low16 = torch.finfo(torch.float16).min
    one = made([[1, 2], [0, 0]], [[60000, -60000], [low16, low16]], dtype=torch.float16)
    both = ensemble([one, one], tau=0.125, k=2)
    assert both.table("query_topk").tolist() == [[1, 2], [0, 0]]
    assert both.table("query_scores").tolist() == [[0, -960000], [LOW, LOW]]  # (-60000 - 60000) / 0.125


def test_teachers_that_do_not_fit_are_refused():
    one = made([[1, 2]], [[1, 0]])
    with pytest.raises(KnowledgeError, match="speaks about split other"):
        ensemble([one, made([[1, 2]], [[1, 0]], split="other")])
    with pytest.raises(KnowledgeError, match="same queries"):
        ensemble([one, made([[1, 2]] * 2, [[1, 0]] * 2)])
    with pytest.raises(KnowledgeError, match="above 0"):
        ensemble([one, one], [1, 0])
    with pytest.raises(KnowledgeError, match=r"weights are for \['b'\]"):
        ensemble({"a": one}, {"b": 1})
    with pytest.raises(KnowledgeError, match="at least one"):
        ensemble([])


def test_cross_fitted_parts_come_together():
    one = made([[1, 2], [3, 4], [0, 0]], [[9, 8], [7, 6], [LOW, LOW]], "one")
    two = made([[5, 6], [7, 8], [2, 1], [8, 7]], [[1, 0], [3, 2], [5, 4], [7, 6]], "two")
    whole = assemble([(one, torch.tensor([1])), (two, torch.tensor([3, 0]))])
    assert whole.table("query_topk").tolist() == [[5, 6], [3, 4], [0, 0], [8, 7]]
    assert whole.table("query_scores").tolist() == [[1, 0], [7, 6], [LOW, LOW], [7, 6]]
    assert whole.source.teacher == "assembled(one, two)"
    with pytest.raises(KnowledgeError, match=r"queries \[1\] are in two parts"):
        assemble([(one, torch.tensor([1, 0])), (two, torch.tensor([1, 2]))])

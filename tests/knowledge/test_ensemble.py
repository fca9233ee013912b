from __future__ import annotations

import json
import math

import pytest
import torch

from seqkd.catalogue import Catalogue
from seqkd.errors import KnowledgeError
from seqkd.knowledge import Knowledge, Source
from seqkd.knowledge.ensemble import assemble, by_rank, ensemble, rank_consensus
from seqkd.teaching.list_checks import require_unseen

ITEMS = Catalogue("abcdefgh")
LOW = torch.finfo(torch.float32).min


def made(topk, scores, name="t", split="s", dtype=torch.float32, **options) -> Knowledge:
    tables = {"query_topk": torch.tensor(topk, dtype=torch.int32), "query_scores": torch.tensor(scores, dtype=dtype)}
    source = Source(name, f"r-{name}", split, "train", options=options)
    return Knowledge.from_tables(tables, source=source, catalogue=ITEMS)


def assembled(teachers) -> Knowledge:
    return assemble([(teacher, torch.tensor([query])) for query, teacher in enumerate(teachers)])


COMBINED = pytest.mark.parametrize("combine", [ensemble, rank_consensus, assembled])


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


def test_power_consensus_golden(golden):
    """CCD's ensemble: two teachers that rank all items."""
    case = json.loads((golden / "ccd_ensemble.json").read_text())
    six = Catalogue("abcdef")
    teachers = []
    for scores in (torch.tensor(case["A"]), torch.tensor(case["B"])):
        best = scores.sort(dim=1, descending=True)
        tables = {"query_topk": best.indices.int() + 1, "query_scores": best.values}
        teachers.append(Knowledge.from_tables(tables, source=Source("t", "r", "s", "train"), catalogue=six))
    both = rank_consensus(teachers, importance="power")
    expected = torch.tensor(case["ensemble"]).sort(dim=1, descending=True)
    # the expected values are rounded to eight places, and ours go through a float32 logarithm
    torch.testing.assert_close(both.table("query_scores").exp(), expected.values, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        torch.tensor(case["ensemble"]).gather(1, both.table("query_topk").long() - 1), expected.values
    )


@pytest.mark.parametrize("importance", ["exponential", "power"])
@pytest.mark.parametrize("k", [3, None, 30])
def test_rank_consensus_matches_a_slow_loop(importance, k):
    """Lists of unlike lengths, some short, some empty; what a teacher left out has the rank behind its last."""
    law = {"exponential": lambda r: math.exp(-r / 10), "power": lambda r: (r + 1) ** -0.05}[importance]
    generator = torch.Generator().manual_seed(1)
    teachers, weights = [], [1.0, 2.0, 5.0]
    for name, m in zip("xyz", [3, 5, 2], strict=True):
        topk = torch.stack([torch.randperm(8, generator=generator)[:m] + 1 for _ in range(24)])
        topk[::7, -1] = 0
        topk[::5] *= name != "y"
        scores = torch.randn(24, m, generator=generator) * 1e4  # of no concern
        teachers.append(made(topk.tolist(), scores.masked_fill(topk == 0, LOW).tolist(), name))
    found = rank_consensus(dict(zip("xyz", teachers, strict=True)), weights, importance=importance, k=k)
    width = k or 5
    for query in range(24):
        lists = [[i for i in teacher.table("query_topk")[query].tolist() if i] for teacher in teachers]
        speaks = [weight for weight, items in zip(weights, lists, strict=True) if items]
        total = {}
        for item in sorted({item for items in lists for item in items}):
            ranks = [items.index(item) if item in items else len(items) for items in lists if items]
            total[item] = sum(w / sum(speaks) * law(r) for w, r in zip(speaks, ranks, strict=True))
        best = sorted(total.values(), reverse=True)[:width]
        topk, scores = found.table("query_topk")[query].tolist(), found.table("query_scores")[query]
        assert topk[len(best) :] == [0] * (width - len(best)) and (scores[len(best) :] == LOW).all()
        assert scores[: len(best)].exp().tolist() == pytest.approx(best, rel=1e-5)
        assert [total[item] for item in topk[: len(best)]] == pytest.approx(best, rel=1e-5)
    assert found.source.teacher == "consensus(x, y, z)"
    assert found.source.similarity == "log importance" and found.source.options["importance"] == importance
    found.check(catalogue=ITEMS)


def test_teachers_that_disagree_leave_ties_to_the_lower_id():
    one, two = made([[7, 3]], [[9, 8]], "one"), made([[2, 5]], [[0.2, 0.1]], "two")
    assert rank_consensus([one, two]).table("query_topk").tolist() == [[2, 7]]
    assert rank_consensus([one, two], [1, 9]).table("query_topk").tolist() == [[2, 5]]
    assert rank_consensus([one, two], k=4).table("query_topk").tolist() == [[2, 7, 3, 5]]


def test_deep_ranks_keep_a_finite_importance():
    """exp(-r / 10) is 0 in float32 from rank 1040 on, its logarithm is not."""
    many = Catalogue(map(str, range(1, 2001)))
    topk = torch.arange(1, 2001, dtype=torch.int32)[None]
    tables = {"query_topk": topk, "query_scores": torch.zeros(1, 2000)}
    one = Knowledge.from_tables(tables, source=Source("t", "r", "s", "train"), catalogue=many)
    both = rank_consensus([one, one])
    assert torch.equal(both.table("query_topk"), topk)
    torch.testing.assert_close(both.table("query_scores")[0], -torch.arange(2000) / 10, atol=1e-5, rtol=1e-6)


def test_scores_by_rank_alone():
    told = made([[3, 1, 2], [2, 0, 0], [0, 0, 0]], [[9.0, 8.9, -4.0], [1.0, LOW, LOW], [LOW] * 3], filter_seen=True)
    ranked = by_rank(told, scale=2.0)
    assert ranked.table("query_topk").equal(told.table("query_topk"))
    assert ranked.table("query_scores").tolist() == [[0.0, -0.5, -1.0], [0.0, LOW, LOW], [LOW] * 3]
    assert (ranked.source.similarity, ranked.source.options) == ("rank", {"filter_seen": True, "rank_scale": 2.0})
    with pytest.raises(KnowledgeError, match="scale must be above 0"):
        by_rank(told, scale=0.0)


def test_a_consensus_refuses_what_an_ensemble_does():
    one = made([[1, 2]], [[1, 0]])
    with pytest.raises(KnowledgeError, match="speaks about split other"):
        rank_consensus([one, made([[1, 2]], [[1, 0]], split="other")])
    with pytest.raises(KnowledgeError, match=r"\['exponential', 'power'\], got 'linear'"):
        rank_consensus([one, one], importance="linear")


@COMBINED
@pytest.mark.parametrize("options", [{"filter_seen": True}, {"filter_seen": False}, {}])
def test_lists_without_what_users_have_stay_such(combine, options):
    """And others stay others: a method that teaches what users lack refuses them, and only them."""
    teachers = [made([[1, 2], [3, 4]], [[1, 0]] * 2, name, **options, k=2) for name in ("one", "two")]
    both = combine(teachers)
    assert {name: both.source.options[name] for name in both.source.options if name == "filter_seen"} == options
    if options.get("filter_seen", True):
        require_unseen({"both": both})
    else:
        with pytest.raises(KnowledgeError, match="lists of 'both' hold what users have already"):
            require_unseen({"both": both})


@COMBINED
@pytest.mark.parametrize(("one", "two"), [(True, False), (False, True), (False, None), (None, True)])
def test_lists_with_and_without_what_users_have_are_not_combined(combine, one, two):
    told = [{} if seen is None else {"filter_seen": seen} for seen in (one, two)]
    teachers = [made([[1, 2], [3, 4]], [[1, 0]] * 2, name, **said) for name, said in zip("ab", told, strict=True)]
    with pytest.raises(KnowledgeError, match=f"a have filter_seen={one}, those of b filter_seen={two}.*Export both"):
        combine(teachers)

from __future__ import annotations

import json
import logging
from itertools import pairwise

import pytest
import torch

from seqkd.batches.positives import Positives
from seqkd.errors import ConfigError, KnowledgeError
from seqkd.knowledge import Knowledge
from seqkd.method import Epoch
from seqkd.teaching.replayed_pairs import Pairs, ReplayedPairs, ReplayedPairsConfig, log_weights, merged

from ..methods.tiny_rankings import ITEMS, USERS, dataset, rankings, set_split, unfiltered
from ..tiny import nobody

SPLIT = set_split()
PROXIES = {"stability": rankings(SPLIT, 0), "plasticity": rankings(SPLIT, 1)}
POSITIVES = Positives(dataset(SPLIT))
CONFIG = {"draws": 2, "list_length": 6}


def epoch(number=0):
    return Epoch(number, 10, torch.Generator().manual_seed(number), POSITIVES, nobody)


def pairs_of(proxies=PROXIES, queries=None, **config):
    queries = torch.arange(USERS) if queries is None else queries
    return ReplayedPairs(ReplayedPairsConfig(**{**CONFIG, **config}), proxies, queries)


def alike(rows, items):
    """A student who ranks all items alike."""
    return torch.zeros_like(items)


def proxy_list(case, name):
    """The first A of a proxy's masked ranking, ids from 1."""
    scores = torch.tensor(case[f"{name}_scores"], dtype=torch.float64)
    for train in (case["old_train"], case["current_train"]):
        for user, items in train.items():
            for item in items:
                if int(user) < len(scores) and item < scores.shape[1]:
                    scores[int(user), item] = -1e8
    best = scores.topk(case["absolute"], dim=1)
    return best.indices + 1, best.values


@pytest.mark.parametrize("name, epsilon", [("S", None), ("P", None), ("S", 0.5)])
def test_golden_weights(golden, name, epsilon):
    """The golden values are float32."""
    case = json.loads((golden / "ccd_replay.json").read_text())
    lists, _ = proxy_list(case, name)
    ranks = torch.tensor(case[f"{name}_rank"])
    assert torch.equal(ranks.gather(1, lists - 1), torch.arange(6).expand(4, -1))
    student = torch.tensor(case["W_rank"])[:4].gather(1, lists - 1)
    weights = torch.zeros(4, 10).scatter(1, lists - 1, log_weights(student, epsilon or case["eps"]).exp())
    expected = case[f"sampling_weights_{name}" + (f"_eps{epsilon}" if epsilon else "")]
    torch.testing.assert_close(weights, torch.tensor(expected), rtol=1e-6, atol=0)


def test_golden_merge(golden):
    """Its draws of both proxies, with the scores it gives them, are one set of pairs."""
    case = json.loads((golden / "ccd_replay.json").read_text())
    parts = []
    for name, drawn in (("S", case["sampled_S_seed5"]), ("P", case["sampled_P"])):
        items = torch.tensor(drawn)
        parts.append((items + 1, torch.tensor(case[f"{name}_scores"]).gather(1, items).sigmoid()))
    pairs = merged(Pairs(*(torch.cat(column, dim=1) for column in zip(*parts, strict=True))))
    found = {
        (user, item - 1): label
        for user in range(4)
        for item, label in zip(pairs.items[user].tolist(), pairs.labels[user].tolist(), strict=True)
        if item
    }
    expected = {(user, item): label for user, item, label in case["merged_dataset_u_i_label"]}
    assert found == pytest.approx(expected, rel=1e-6) and len(expected) == (pairs.items > 0).sum() == 18


def test_what_is_drawn_is_listed_with_the_highest_label():
    pairs = pairs_of(draws=6)  # all of both lists
    pairs.draw(epoch(), lambda: alike)
    for row in range(USERS):
        best = {}
        for said in PROXIES.values():
            items, scores = (said.table(f"query_{name}")[row] for name in ("topk", "scores"))
            for item, label in zip(items.tolist(), scores.sigmoid().tolist(), strict=True):
                best[item] = max(label, best.get(item, 0.0))
        told = pairs.of(torch.tensor([row]))
        kept = told.items[0] > 0
        drawn = dict(zip(told.items[0][kept].tolist(), told.labels[0][kept].tolist(), strict=True))
        assert drawn == pytest.approx(best, rel=1e-6)
    assert pairs.per_row() == (pairs.items > 0).sum().item() / USERS < 12


def test_what_the_student_ranks_low_is_drawn_most():
    """One of a list of 2: places differ by r_W - r_P, epsilon = log(3) / 9, so that 9 ranks are odds of 3."""
    rows = 40_000
    tables = {"query_topk": torch.tensor([[4, 5]]).repeat(rows, 1), "query_scores": torch.zeros(rows, 2)}
    said = Knowledge.from_tables(tables, source=PROXIES["stability"].source, catalogue=SPLIT.catalogue)
    config = {"draws": 1, "list_length": 2, "epsilon": torch.tensor(3.0).log().item() / 9}
    pairs = pairs_of({"one": said}, torch.arange(rows), **config)
    pairs.draw(epoch(), lambda: lambda at, items: torch.where(items == 4, 10, 2))
    # weights: item 4: 10 - 0, item 5: 2 - 1; 9 ranks apart
    assert (pairs.items == 4).double().mean().item() == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("reference, epochs", [("student", [0, 2, 4]), ("start", [0])])
def test_the_student_is_looked_at_when_it_is_time_to(reference, epochs):
    """With every drawing, or with the first; new items are drawn with either."""
    pairs, looked, draws = pairs_of(redraw=2, reference=reference), [], []
    for number in range(5):
        pairs.draw(epoch(number), lambda number=number: looked.append(number) or alike)
        draws.append(pairs.items.clone())
    assert looked == epochs
    assert [torch.equal(*two) for two in pairwise(draws)] == [True, False, True, False]


@pytest.mark.parametrize("reference", ["student", "start"])
def test_a_resumed_run_draws_the_same(reference):
    """From what is saved, and a student who has gone on."""
    straight, resumed = pairs_of(reference=reference, redraw=2), pairs_of(reference=reference, redraw=2)
    straight.draw(epoch(0), lambda: lambda rows, items: items.long() * 9)
    resumed.load_state_dict(straight.state_dict())
    resumed.draw(epoch(1), lambda: pytest.fail("it looked at the student"))
    assert torch.equal(resumed.items, straight.items)
    later = (lambda: pytest.fail("it looked at the student")) if reference == "start" else (lambda: alike)
    for pairs in (straight, resumed):
        pairs.draw(epoch(2), later)
    assert torch.equal(resumed.items, straight.items) and torch.equal(resumed.labels, straight.labels)


def test_draws_by_proxy_and_short_lists(caplog):
    pairs = pairs_of(draws={"stability": 3, "plasticity": 0})
    assert pairs.items.shape == (USERS, 3) and [*pairs.proxies] == ["stability"]
    with caplog.at_level(logging.WARNING):
        pairs = pairs_of(draws=8, list_length=10)
    assert "lists 6 items, fewer than list_length=10" in caplog.text and pairs.items.shape == (USERS, 12)
    pairs.draw(epoch(), lambda: alike)
    assert (pairs.items >= 0).all() and pairs.items.max() <= ITEMS


def test_empty_places_are_never_drawn():
    said = PROXIES["stability"]
    topk, scores = said.table("query_topk").clone(), said.table("query_scores").clone()
    topk[:, 1:], scores[:, 1:] = 0, torch.finfo(scores.dtype).min
    short = Knowledge.from_tables(
        {"query_topk": topk, "query_scores": scores}, source=said.source, catalogue=said.catalogue
    )
    pairs = pairs_of({"one": short})
    pairs.draw(epoch(), lambda: alike)
    assert torch.equal(pairs.items, torch.stack([topk[:, 0], torch.zeros(USERS, dtype=torch.int32)], dim=1))
    assert pairs.per_row() == 1 and pairs.labels.isfinite().all()
    empty = Knowledge.from_tables(
        {"query_topk": topk * 0, "query_scores": scores}, source=said.source, catalogue=said.catalogue
    )
    pairs = pairs_of({"one": empty})
    pairs.draw(epoch(), lambda: alike)
    with pytest.raises(KnowledgeError, match="empty for all"):
        pairs.per_row()


def test_errors():
    for wrong, said in (
        ({"reference": "teacher"}, "reference"),
        ({"redraw": 0}, "redraw=0"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"draws": 7}, "draws=7"),
        ({"draws": 0}, "above 0"),
        ({"draws": {"stability": 3}}, r"Name each"),
    ):
        with pytest.raises(ConfigError, match=said):
            pairs_of(**wrong)
    with pytest.raises(ConfigError, match="no pairs are drawn yet"):
        pairs_of().of(torch.arange(2))
    with pytest.raises(KnowledgeError, match="filter_seen=True"):
        pairs_of({"one": unfiltered(PROXIES["stability"])})

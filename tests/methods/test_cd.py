from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
import torch

from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, KnowledgeError
from seqkd.functional.soft_bce import soft_bce
from seqkd.methods.cd import CD, CDConfig, Labelled, label
from seqkd.teaching.guided_lists import Rankings
from seqkd.trainer import DistillationTrainer

from ..tiny import arguments
from .tiny_guided import begin, ranking_of
from .tiny_rankings import batch_of, dataset, mf, near, rankings, set_split, tensor

SPLIT = set_split()
CONFIG = {"sampled": 3, "list_length": 6}


def distiller_of(student=None, teachers=1, **config):
    knowledge = {f"t{seed}": rankings(SPLIT, seed) for seed in range(teachers)}
    return Distiller(student or mf(SPLIT), {"cd": CD(CDConfig(**{**CONFIG, **config}))}, {}, knowledge)


def losses_of(distiller, batch):
    output = distiller.student(user_ids=batch["user_ids"])
    return distiller.methods["cd"](distiller.student, batch, output, distiller._knowledge_of(batch))


def sigma(x: float) -> float:
    return 1 / (1 + exp(-x))


@pytest.mark.parametrize("guide", ["student", "teacher"])
def test_each_distinct_query_costs_what_the_paper_says(guide):
    """Two teachers; whole lists are drawn, so the loop knows them, and labels every item by itself."""
    distiller = distiller_of(teachers=2, guide=guide, sampled=6, list_length=6, bias=0.5, temperature=2.0)
    method, student = distiller.methods["cd"], distiller.student
    begin(method, student, SPLIT)
    batch = batch_of(SPLIT, [0, 1, 2, 40, 60], distiller)
    costs, unlisted = [], 0
    for query in sorted(set(batch["query_ids"].tolist())):
        scores = (student.item_embedding.weight @ student.user_embedding.weight[query + 1]).tolist()
        for said in distiller.knowledge.values():
            top = said.table("query_topk")[query].tolist()
            theirs = said.table("query_scores")[query].tolist()
            cost = 0.0
            for item in ranking_of(student, SPLIT, query)[:6] if guide == "student" else top:
                unlisted += item not in top
                y = sigma(((theirs[top.index(item)] if item in top else min(theirs)) + 0.5) / 2)
                cost -= y * log(sigma(scores[item])) + (1 - y) * log(1 - sigma(scores[item]))
            costs.append(cost)
    losses = losses_of(distiller, batch)
    assert losses.shape == (5,) and losses.mean().item() == pytest.approx(sum(costs) / len(costs), rel=1e-5)
    assert bool(unlisted) == (guide == "student")


def test_the_loss_by_hand():
    said = Labelled(torch.tensor([[4, 2, 0]]), tensor([[0.25, 1.0, 0.5]]))
    scores = tensor([[log(3), -log(3), 7.0]]).requires_grad_()  # sigma is 3/4 and 1/4; the last place is empty
    loss = soft_bce(scores, said.labels, said.items == 0)
    near(loss, [-(0.25 * log(0.75) + 0.75 * log(0.25)) - log(0.25)])
    loss.sum().backward()
    near(scores.grad, [[0.5, -0.75, 0.0]])  # sigma(S) - y


def test_items_are_drawn_by_their_place_in_the_guides_ranking():
    generator, n = torch.Generator().manual_seed(0), 40_000
    rows = Rankings(torch.tensor([[5, 6, 7]]).expand(n, -1), torch.tensor([[1, 5, 2]]).expand(n, -1), torch.zeros(n, 3))
    for guide, items in (("student", (5, 6, 7)), ("teacher", (1, 5, 2))):
        config = CDConfig(guide=guide, sampled=1, list_length=3, sampling_temperature=1.0)
        drawn = label(rows, generator, config).items
        weights = np.exp([-1, -2, -3])
        shares = [(drawn == item).double().mean().item() for item in items]
        np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.01)


def test_a_teacher_that_says_nothing_teaches_nothing():
    rows = Rankings(
        torch.tensor([[5, 6, 7]]), torch.zeros(1, 3, dtype=torch.int64), torch.full((1, 3), -65504.0).half()
    )
    said = label(rows, torch.Generator(), CDConfig(sampled=2, list_length=3))
    assert not said.items.any() and said.labels.isfinite().all()
    assert soft_bce(torch.ones(1, 2), said.labels, said.items == 0).tolist() == [0]


def test_the_students_ranking_is_resumed_and_a_teachers_needs_none():
    distiller = distiller_of()
    method, student = distiller.methods["cd"], distiller.student
    begin(method, student, SPLIT, 1)
    with torch.no_grad():
        student.item_embedding.weight.neg_()
    resumed = distiller_of().methods["cd"]
    resumed.load_state_dict(method.state_dict())
    begin(resumed, student, SPLIT, 1)
    pairs = zip(method.lists.drawn["t0"], resumed.lists.drawn["t0"], strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    assert method.lists.student_top.shape == (24, 6)
    assert distiller_of(guide="teacher").methods["cd"].lists.student_top.shape == (24, 0)


def test_gradient_reaches_the_drawn_items_only():
    distiller = distiller_of()
    begin(distiller.methods["cd"], distiller.student, SPLIT)
    batch = batch_of(SPLIT, [0], distiller)
    losses_of(distiller, batch).sum().backward()
    student, query = distiller.student, int(batch["query_ids"][0])
    moved = set(student.item_embedding.weight.grad.abs().sum(1).nonzero().flatten().tolist())
    assert moved == set(distiller.methods["cd"].lists.drawn["t0"][0][query].tolist()) and 0 not in moved
    assert student.user_embedding.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [query + 1]


def test_large_scores_stay_finite():
    scores = torch.tensor([[1e3, -1e3]], requires_grad=True)
    rows = Rankings(torch.tensor([[1, 2]]), torch.tensor([[1, 2]]), torch.tensor([[1e3, -1e3]]))
    said = label(rows, torch.Generator(), CDConfig(sampled=2, list_length=2))
    loss = soft_bce(scores.flip(1), said.labels, said.items == 0)
    loss.sum().backward()
    assert loss.item() == pytest.approx(2000) and scores.grad.isfinite().all()


def test_training_learns_the_teachers_scores(tmp_path):
    """Alone, without the label: over the items that are drawn again and again, the scores become the teacher's."""
    method, knowledge = CD(CDConfig(guide="teacher", sampled=5, list_length=6)), {"t": rankings(SPLIT)}
    student = mf(SPLIT, hidden_size=8)

    def error() -> float:
        with torch.no_grad():
            ours = student.score(student(torch.arange(1, 25)).query_embeddings)
        said = knowledge["t"]
        return float((ours.gather(1, said.table("query_topk").long()) - said.table("query_scores")).abs().mean())

    before = error()
    settings = {"num_train_epochs": 15, "learning_rate": 0.05, "per_device_train_batch_size": 32, "logging_steps": 50}
    distiller = Distiller(student, {"cd": method}, {}, knowledge, 0.0)
    DistillationTrainer(distiller, arguments(tmp_path, **settings), dataset(SPLIT)).train()
    assert error() < 0.4 * before


def test_lists_shorter_than_the_students_ranking_are_refused():
    """What a teacher did not list would be taught as its last item: most of what the student ranks high."""
    with pytest.raises(KnowledgeError, match=r"the lists of 't0' have 6 places, but 8 are compared.*list_length=6"):
        distiller_of(list_length=8)
    distiller_of(list_length=8, guide="teacher")


@pytest.mark.parametrize(
    "wrong", [{"guide": "both"}, {"sampled": 501}, {"temperature": 0.0}, {"sampling_temperature": 0.0}, {"refresh": 0}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        CDConfig(**wrong)

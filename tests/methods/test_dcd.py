from __future__ import annotations

import json
from math import tanh

import numpy as np
import pytest
import torch

from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, KnowledgeError
from seqkd.functional.list_ranks import ranks_in
from seqkd.methods.dcd import DCD, DCDConfig, correction_weights, draw, dual_correction
from seqkd.teaching.guided_lists import Rankings
from seqkd.trainer import DistillationTrainer

from ..tiny import arguments
from .tiny_guided import begin, ranking_of
from .tiny_rankings import batch_of, dataset, mf, near, rankings, set_split, slow_relaxed_ranking

SPLIT = set_split()
CONFIG = {"under": 3, "over": 2, "list_length": 6, "temperature": 2.0}


def distiller_of(student=None, teachers=1, **config):
    knowledge = {f"t{seed}": rankings(SPLIT, seed) for seed in range(teachers)}
    return Distiller(student or mf(SPLIT), {"dcd": DCD(DCDConfig(**{**CONFIG, **config}))}, {}, knowledge)


def losses_of(distiller, batch):
    output = distiller.student(user_ids=batch["user_ids"])
    return distiller.methods["dcd"](distiller.student, batch, output, distiller._knowledge_of(batch))


def test_golden(golden):
    """Ranks and weights from scores; the golden ids count from 0, ours from 1."""
    case = json.loads((golden / "dcd_weights.json").read_text())["cases"][0]
    inputs, expected = case["inputs"], case["expected"]
    student, teacher = (
        torch.tensor(inputs[name]).argsort(dim=1, descending=True) + 1 for name in ("student_scores", "teacher_scores")
    )
    teacher = teacher[:, : inputs["mxK"]]
    assert (teacher - 1).tolist() == expected["teacher_top"]
    ranks = ranks_in(student, teacher)
    assert ranks.tolist() == expected["student_rank_of_teacher_top"]
    under, over = correction_weights(ranks, inputs["T"], 1e-5)
    near(under, expected["weight_under_estimated"])
    near(over, expected["weight_over_estimated"])


def test_each_distinct_query_costs_what_the_paper_says():
    """Two teachers, no floor: the loop ranks, weighs and scores by itself, and knows which items can be drawn."""
    distiller = distiller_of(teachers=2, floor=0.0, under=6, over=6)
    method, student = distiller.methods["dcd"], distiller.student
    begin(method, student, SPLIT)
    batch = batch_of(SPLIT, [0, 1, 2, 40, 60], distiller)
    costs, errors = [], 0
    for query in sorted(set(batch["query_ids"].tolist())):
        ranking = ranking_of(student, SPLIT, query)
        scores = (student.item_embedding.weight @ student.user_embedding.weight[query + 1]).tolist()
        for said in distiller.knowledge.values():
            top = said.table("query_topk")[query].tolist()
            under = [scores[item] for place, item in enumerate(top) if ranking.index(item) > place]
            over = [scores[item] for place, item in enumerate(top) if ranking.index(item) < place]
            costs.append(slow_relaxed_ranking(np.array(under), np.array(over)))
            errors += len(over)
    assert errors
    losses = losses_of(distiller, batch)
    assert losses.shape == (5,) and losses.mean().item() == pytest.approx(sum(costs) / len(costs), rel=1e-5)


def test_weights_are_those_of_a_slow_loop_where_the_student_lists_less():
    """Beyond its list the student's rank is taken to be its length, 5 T behind the teacher's: tanh is 1 to 1e-4."""
    config = DCDConfig(under=3, over=3, list_length=6, temperature=2.0)
    assert config.student_length == 16
    ranks = torch.tensor([[16, 0, 5, 3, 4, 16]])
    under, over = correction_weights(ranks, 2.0, 0.0)
    slow = [
        [tanh(max(sign * (rank - place) / 2, 0)) for place, rank in enumerate(ranks[0].tolist())] for sign in (1, -1)
    ]
    assert under[0].tolist() == pytest.approx(slow[0]) and over[0].tolist() == pytest.approx(slow[1])
    assert under[0, 5] > 1 - 1e-4 and under[0, 4] == over[0, 4] == 0


def test_draws_follow_the_weights_and_keep_the_order():
    generator = torch.Generator().manual_seed(0)
    lists = torch.tensor([[7, 3, 9, 0]]).expand(40_000, -1)
    weights = torch.tensor([[1.0, 3.0, 6.0, 100.0]]).double().expand(40_000, -1)
    one = draw(lists, weights, 1, generator)
    shares = [(one == item).double().mean().item() for item in (7, 3, 9, 0)]
    np.testing.assert_allclose(shares, [0.1, 0.3, 0.6, 0], atol=0.01)
    two = draw(lists[:200], weights[:200], 2, generator).tolist()
    assert {tuple(row) for row in two} == {(7, 3), (7, 9), (3, 9)}


def test_nothing_is_drawn_that_weighs_nothing():
    generator = torch.Generator().manual_seed(0)
    lists, weights = torch.tensor([[7, 3, 9, 0]]), torch.tensor([[0.0, 1.0, 0.0, 1.0]]).double()
    assert sorted(draw(lists, weights, 3, generator)[0].tolist()) == [0, 0, 3]
    # the student agrees: without a floor there is nothing to correct, and nothing to pay
    agreed = Rankings(lists[:, :3], lists[:, :3], torch.zeros(1, 3))
    assert not any(part.any() for part in dual_correction(agreed, generator, DCDConfig(under=2, over=2, floor=0.0)))


def test_lists_are_of_one_epoch_and_resumed():
    distiller = distiller_of()
    method, student = distiller.methods["dcd"], distiller.student
    begin(method, student, SPLIT, 1)
    drawn = method.lists.drawn["t0"]
    with torch.no_grad():
        student.item_embedding.weight.neg_()
    resumed = distiller_of().methods["dcd"]
    resumed.load_state_dict(method.state_dict())
    begin(resumed, student, SPLIT, 1)
    assert all(torch.equal(one, other) for one, other in zip(drawn, resumed.lists.drawn["t0"], strict=True))
    begin(resumed, student, SPLIT, 2)
    assert not torch.equal(drawn[0], resumed.lists.drawn["t0"][0])


def test_gradient_raises_the_under_estimated_and_lowers_the_over_estimated():
    distiller = distiller_of()
    student = distiller.student
    begin(distiller.methods["dcd"], student, SPLIT)
    batch = batch_of(SPLIT, [0], distiller)
    losses_of(distiller, batch).sum().backward()
    query = int(batch["query_ids"][0])
    along = student.item_embedding.weight.grad @ student.user_embedding.weight[query + 1]
    under, over = (part[query].tolist() for part in distiller.methods["dcd"].lists.drawn["t0"])
    assert set(along.nonzero().flatten().tolist()) <= {*under, *over}
    only_over, only_under = set(over) - set(under), set(under) - set(over)
    assert all(along[item] > 0 for item in only_over) and along[list(only_under)].sum() < 0
    moved = student.user_embedding.weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert moved == [query + 1]


def test_large_scores_stay_finite():
    distiller = distiller_of(student=mf(SPLIT, initializer_range=30.0))
    begin(distiller.methods["dcd"], distiller.student, SPLIT)
    losses = losses_of(distiller, batch_of(SPLIT, [0, 30], distiller))
    losses.sum().backward()
    assert losses.isfinite().all() and distiller.student.item_embedding.weight.grad.isfinite().all()


def test_training_moves_the_ranking_towards_the_teacher(tmp_path):
    """Alone, without the label."""
    method = DCD(DCDConfig(under=6, over=6, list_length=12, temperature=3.0))
    knowledge = {"t": rankings(SPLIT, length=12)}
    student = mf(SPLIT, hidden_size=8)

    def error() -> float:
        top = knowledge["t"].table("query_topk")
        pairs = [(ranking_of(student, SPLIT, q), row) for q, row in enumerate(top.tolist())]
        return float(np.mean([abs(ours.index(i) - r) for ours, row in pairs for r, i in enumerate(row) if i in ours]))

    before = error()
    settings = {"num_train_epochs": 15, "learning_rate": 0.05, "per_device_train_batch_size": 32, "logging_steps": 50}
    distiller = Distiller(student, {"dcd": method}, {}, knowledge, 0.0)
    DistillationTrainer(distiller, arguments(tmp_path, **settings), dataset(SPLIT)).train()
    assert error() < 0.6 * before


def test_lists_of_which_all_would_be_drawn_are_refused():
    with pytest.raises(KnowledgeError, match=r"the lists of 't0' have 6 places, but 8 are compared.*list_length=6"):
        distiller_of(list_length=8)
    with pytest.raises(ConfigError, match="the whole list would be drawn"):
        DCDConfig(under=3, over=6, list_length=6)


@pytest.mark.parametrize("wrong", [{"under": 501}, {"over": 0}, {"temperature": 0.0}, {"floor": -1.0}, {"refresh": 0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DCDConfig(**wrong)


def test_without_a_trainer_it_says_what_to_call():
    distiller = distiller_of()
    with pytest.raises(ConfigError, match="on_epoch_begin"):
        losses_of(distiller, batch_of(SPLIT, [0], distiller))

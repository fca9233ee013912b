from __future__ import annotations

import json
from math import exp, log

import numpy as np
import pytest
import torch

from seqkd.distiller import Distiller
from seqkd.errors import ConfigError
from seqkd.methods.rcekd import RCEKD, Parts, RCEKDConfig, rejuvenated, sample

from .tiny_rankings import batch_of, begin, mf, near, rankings, set_split, tensor

CONFIG = {"top": 3, "sampled": 3, "list_length": 6}


def distiller_of(split, teachers=1, **config):
    knowledge = {f"t{seed}": rankings(split, seed) for seed in range(teachers)}
    return Distiller(mf(split), {"rcekd": RCEKD(RCEKDConfig(**{**CONFIG, **config}))}, {}, knowledge)


def losses_of(distiller, batch):
    output = distiller.student(user_ids=batch["user_ids"])
    return distiller.methods["rcekd"](distiller.student, batch, output, distiller._knowledge_of(batch))


def slow(student, teacher, student_top, sampled, teacher_top, beta, tau):
    """The loss of one query from all scores, item by item."""

    def ce(items):
        p, q = ([exp(scores[i] / tau) for i in items] for scores in (teacher, student))
        return -sum(a / sum(p) * log(b / sum(q)) for a, b in zip(p, q, strict=True))

    w = exp(-beta * len({*teacher_top} & {*sampled}) / len(teacher_top))
    rest = [*sampled, *(i for i in teacher_top if i not in sampled and i not in student_top)]
    return (1 - w) * ce(student_top) + w * ce(rest)


def test_golden(golden):
    """The golden ids count from 0, ours from 1."""
    case = json.loads((golden / "rcekd.json").read_text())["cases"][0]
    inputs, expected = case["inputs"], case["expected"]
    config = RCEKDConfig(beta=inputs["beta"], temperature=inputs["tau"])
    columns = [torch.tensor(inputs[name]) for name in ("student_top", "sampled_student_items", "teacher_top")]
    student = tensor(inputs["student_scores"]).requires_grad_()
    ours, theirs = (Parts(*(s.gather(1, c) for c in columns)) for s in (student, tensor(inputs["teacher_scores"])))
    losses = rejuvenated(Parts(*(c + 1 for c in columns)), ours, theirs, config)
    near(losses.sum(), expected["loss"])
    losses.sum().backward()
    near(student.grad, expected["grad_student_scores"])
    rows = zip(inputs["student_scores"], inputs["teacher_scores"], *(c.tolist() for c in columns), strict=True)
    by_hand = [slow(*row, inputs["beta"], inputs["tau"]) for row in rows]  # w in float64, theirs is in float32
    torch.testing.assert_close(losses.detach(), tensor(by_hand), rtol=1e-8, atol=0)


def test_the_whole_method(monkeypatch):
    """All of the student's list is sampled, so nothing is random: the loop ranks by itself."""
    split = set_split()
    distiller = distiller_of(split, teachers=2, sampled=6)
    begin(distiller.methods["rcekd"], split)
    batch = batch_of(split, [0, 1, 30, 60], distiller)
    student, costs = distiller.student, []
    for query in sorted(set(batch["query_ids"].tolist())):
        ours = (student.item_embedding.weight @ student.user_embedding.weight[query + 1]).tolist()
        ranking = sorted(range(1, 21), key=lambda item: -ours[item])
        for said in distiller.knowledge.values():
            theirs = (said.table("item_embeddings") @ said.table("query_embeddings")[query]).tolist()
            teacher_top = said.table("query_topk")[query, :3].tolist()
            costs.append(slow(ours, theirs, ranking[:3], ranking[:6], teacher_top, 3.0, 1.0))
    losses = losses_of(distiller, batch)
    assert losses.shape == (4,) and losses.mean().item() == pytest.approx(sum(costs) / len(costs), rel=1e-5)


def test_samples_follow_the_law():
    """Teacher items stand at places 0 and 2 of 4, so from each place on there are 2, 1, 1, 0; T = 1."""
    ranking = torch.tensor([[4, 3, 2, 1]]).expand(60_000, -1)
    torch.manual_seed(0)
    drawn = sample(ranking, torch.tensor([[2, 4, 9]]).expand(60_000, -1), 1, 1.0)
    weights = np.exp([3, 2, 2, 1])
    shares = [(drawn == item).double().mean().item() for item in (4, 3, 2, 1)]
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.006)
    both = sample(ranking[:50], torch.tensor([[2, 4, 9]]).expand(50, -1), 3, 1.0)
    assert all(len(set(row)) == 3 for row in both.tolist())


def test_the_ranking_of_an_epoch_is_kept_and_resumed():
    split = set_split()
    distiller = distiller_of(split)
    method, student = distiller.methods["rcekd"], distiller.student
    begin(method, split, 0)
    batch = batch_of(split, [0, 30], distiller)
    losses_of(distiller, batch)
    ids, before = batch["query_ids"], method.student_top.clone()
    assert method.prepared.tolist().count(0) == 2 and before[ids].all()
    with torch.no_grad():
        student.item_embedding.weight.neg_()
    losses_of(distiller, batch)
    assert torch.equal(method.student_top, before)  # the epoch's
    resumed = distiller_of(split).methods["rcekd"]
    resumed.load_state_dict(method.state_dict())
    assert torch.equal(resumed.student_top, before) and torch.equal(resumed.prepared, method.prepared)
    begin(method, split, 1)
    losses_of(distiller, batch)
    assert not torch.equal(method.student_top[ids], before[ids])


def test_refresh_0_ranks_in_every_step_and_keeps_nothing():
    split = set_split()
    distiller = distiller_of(split, refresh=0)
    losses = losses_of(distiller, batch_of(split, [0, 30], distiller))
    losses.sum().backward()
    assert losses.isfinite().all() and not len(distiller.methods["rcekd"].student_top)


def test_gradient_reaches_the_student_only_through_its_scores():
    split = set_split()
    distiller = distiller_of(split, sampled=1)
    method = distiller.methods["rcekd"]
    batch = batch_of(split, [0], distiller)
    losses_of(distiller, batch).sum().backward()
    moved = set(distiller.student.item_embedding.weight.grad.abs().sum(1).nonzero().flatten().tolist())
    query = int(batch["query_ids"][0])
    allowed = {*method.student_top[query].tolist(), *rankings(split).table("query_topk")[query, :3].tolist()}
    assert moved and moved <= allowed and 0 not in moved


def test_large_scores_and_short_lists_stay_finite():
    items = Parts(torch.tensor([[1, 2]]), torch.tensor([[1, 3]]), torch.tensor([[3, 0]]))
    ours = Parts(*(torch.tensor([[1e3, -1e3]], requires_grad=True) for _ in range(3)))
    theirs = Parts(*(torch.tensor([[-1e3, 1e3]]) for _ in range(3)))
    losses = rejuvenated(items, ours, theirs, RCEKDConfig())
    losses.sum().backward()
    # the sample holds the only item of the teacher's list, so w = exp(-3); both parts cost 2000
    assert losses.item() == pytest.approx(2000, rel=1e-5)
    assert all(part.grad.isfinite().all() for part in ours) and not ours.teacher_top.grad.any()


@pytest.mark.parametrize("wrong", [{"top": 101}, {"sampled": 0}, {"temperature": 0.0}, {"beta": -1.0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RCEKDConfig(**wrong)

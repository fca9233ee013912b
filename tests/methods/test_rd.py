from __future__ import annotations

from math import exp, floor, log, tanh

import pytest
import torch

from seqkd.distiller import Distiller
from seqkd.errors import ConfigError
from seqkd.methods.rd import RD, RDConfig, discrepancy_weights, estimated_ranks, position_weights, weighted_positives
from seqkd.teaching.ranking_lists import Lists
from seqkd.trainer import DistillationTrainer

from ..tiny import ITEMS, arguments
from .tiny_rankings import batch_of, begin, dataset, mf, near, rankings, set_split, tensor

SPLIT = set_split()
CONFIG = {"top": 4, "samples": 5, "position_temperature": 2.0, "warmup_epochs": 1}


def distiller_of(student=None, teachers=1, **config):
    knowledge = {f"t{seed}": rankings(SPLIT, seed) for seed in range(teachers)}
    return Distiller(student or mf(SPLIT), {"rd": RD(RDConfig(**{**CONFIG, **config}))}, {}, knowledge)


def losses_of(distiller, batch):
    output = distiller.student(user_ids=batch["user_ids"])
    return distiller.methods["rd"](distiller.student, batch, output, distiller._knowledge_of(batch))


def slow(top: list[float], sampled: list[float], warm: bool) -> float:
    """The loss of the paper, item by item."""
    weights = []
    for r, score in enumerate(top, start=1):
        rank = floor(sum(other > score for other in sampled) * (ITEMS - 1) / len(sampled)) + 1
        weights.append(exp(-r / 2) * (tanh(max(0.1 * (rank - r), 0)) if warm else 1))
    total = sum(weights)
    return sum(-w / total * log(1 / (1 + exp(-score))) for w, score in zip(weights, top, strict=True)) if total else 0.0


@pytest.mark.parametrize("epoch", [0, 1])
def test_each_distinct_query_costs_what_the_paper_says(epoch):
    """Two teachers; in epoch 0 positions alone weigh."""
    distiller = distiller_of(teachers=2)
    method, student = distiller.methods["rd"], distiller.student
    begin(method, SPLIT, epoch)
    batch = batch_of(SPLIT, [0, 1, 2, 40, 60], distiller)
    users, items = student.user_embedding.weight.detach().double(), student.item_embedding.weight.detach().double()
    costs = []
    for query in sorted(set(batch["query_ids"].tolist())):
        for teacher, said in distiller.knowledge.items():
            lists = method.lists.of(teacher, torch.tensor([query]))
            assert lists.interesting[0].tolist() == said.table("query_topk")[query, :4].tolist()
            top, sampled = ([float(users[query + 1] @ items[item]) for item in part[0] if item] for part in lists)
            costs.append(slow(top, sampled, warm=epoch == 1))
    losses = losses_of(distiller, batch)
    assert losses.shape == (5,) and losses.mean().item() == pytest.approx(sum(costs) / len(costs), rel=1e-5)


def test_weights_by_hand():
    lists = Lists(torch.tensor([[1, 2, 3]]), torch.tensor([[4, 5, 6, 0]]))
    top, sampled = tensor([[0.0, 5.0, -5.0]]), tensor([[1.0, 2.0, -1.0, 99.0]])  # the last place is empty
    ranks = estimated_ranks(top, sampled, lists, num_items=11)
    assert ranks.tolist() == [[7, 1, 11]]  # 2 of 3 beat the first: 2 * 10 / 3 = 6, and one
    near(discrepancy_weights(ranks, 0.5).double(), torch.tensor([[3.0, 0.0, 4.0]]).tanh().double())
    near(position_weights(top, 2.0).double(), torch.tensor([0.0, -0.5, -1.0]).exp().double())
    # weights 1 : 3 of softplus(-S)
    near(weighted_positives(tensor([[log(3), 0.0]]), tensor([[1.0, 3.0]])), [0.25 * log(4 / 3) + 0.75 * log(2)])


def test_a_student_that_agrees_is_left_alone():
    weights = torch.zeros(1, 2)
    top = torch.tensor([[1.0, 2.0]], requires_grad=True)
    loss = weighted_positives(top, weights)
    loss.sum().backward()
    assert loss.tolist() == [0] and not top.grad.any()


def test_gradient_raises_the_teachers_best_and_touches_nothing_else():
    distiller = distiller_of()
    begin(distiller.methods["rd"], SPLIT)
    batch = batch_of(SPLIT, [0], distiller)
    losses_of(distiller, batch).sum().backward()
    student, query = distiller.student, int(batch["query_ids"][0])
    along = student.item_embedding.weight.grad @ student.user_embedding.weight[query + 1]
    top = rankings(SPLIT).table("query_topk")[query, :4].tolist()
    assert set(along.nonzero().flatten().tolist()) == set(top) and (along <= 0).all()
    assert student.user_embedding.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [query + 1]


@pytest.mark.parametrize("epoch", [0, 1])
def test_large_scores_stay_finite(epoch):
    distiller = distiller_of(student=mf(SPLIT, initializer_range=30.0))  # scores of about 1e3
    begin(distiller.methods["rd"], SPLIT, epoch)
    losses = losses_of(distiller, batch_of(SPLIT, [0, 30], distiller))
    losses.sum().backward()
    assert losses.isfinite().all() and distiller.student.item_embedding.weight.grad.isfinite().all()


def test_training_with_labels_raises_the_teachers_best(tmp_path):
    top = rankings(SPLIT, length=4).table("query_topk").long()

    def share_of_top(weight: float) -> float:
        method = RD(RDConfig(**CONFIG))
        distiller = Distiller(
            mf(SPLIT, hidden_size=8), {"rd": method}, {"rd": weight}, {"t": rankings(SPLIT, length=4)}
        )
        settings = {"num_train_epochs": 12, "learning_rate": 0.05, "per_device_train_batch_size": 32}
        DistillationTrainer(distiller, arguments(tmp_path, **settings, logging_steps=50), dataset(SPLIT)).train()
        scores = distiller.student.score(distiller.student(torch.arange(1, 25)).query_embeddings)
        for row, history in enumerate(SPLIT.train["item_ids"]):
            scores[row, history] = -torch.inf
        return (scores.topk(4, dim=1).indices[:, :, None] == top[:, None, :]).any(2).double().mean().item()

    assert share_of_top(1.0) > share_of_top(0.0) + 0.3


@pytest.mark.parametrize(
    "wrong", [{"top": 0}, {"samples": 0}, {"position_temperature": 0.0}, {"discrepancy": 0.0}, {"warmup_epochs": -1}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        RDConfig(**wrong)

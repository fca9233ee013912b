from __future__ import annotations

import pytest
import torch

from seqkd.distiller import Distiller
from seqkd.errors import ConfigError
from seqkd.knowledge.export import export
from seqkd.methods.rrd import RRD, RRDConfig
from seqkd.trainer import DistillationTrainer

from ..tiny import arguments, parts, tiny_sasrec, tiny_split
from .tiny_rankings import batch_of, begin, dataset, mf, rankings, set_split, slow_relaxed_ranking

CONFIG = {"interesting": 4, "uninteresting": 3}


def distiller_of(split, student=None, teachers=1, **config):
    knowledge = {f"t{seed}": rankings(split, seed) for seed in range(teachers)}
    return Distiller(student or mf(split), {"rrd": RRD(RRDConfig(**{**CONFIG, **config}))}, {"rrd": 0.1}, knowledge)


def losses_of(distiller, batch):
    student, method = distiller.student, distiller.methods["rrd"]
    output = student(**{name: batch[name] for name in student.inputs})
    return method(student, batch, output, distiller._knowledge_of(batch))


def test_each_distinct_query_costs_what_the_paper_says():
    """Two teachers; the loop scores every pair of user and item by itself."""
    split = set_split()
    distiller = distiller_of(split, teachers=2)
    method, student = distiller.methods["rrd"], distiller.student
    begin(method, split)
    batch = batch_of(split, [0, 1, 2, 40, 3, 60], distiller)
    ids = sorted(set(batch["query_ids"].tolist()))
    assert len(ids) == 3  # the first four pairs are one user's
    users, items = student.user_embedding.weight.detach().double(), student.item_embedding.weight.detach().double()
    costs = []
    for query in ids:
        for teacher in distiller.knowledge:
            lists = method.lists.of(teacher, torch.tensor([query]))
            scores = [[float(users[query + 1] @ items[item]) for item in part[0].tolist() if item] for part in lists]
            costs.append(slow_relaxed_ranking(*(torch.tensor(s).numpy() for s in scores)))
    losses = losses_of(distiller, batch)
    assert losses.shape == (6,)
    assert losses.mean().item() == pytest.approx(sum(costs) / len(costs), rel=1e-5)


def test_a_sample_of_queries_is_unbiased():
    split = set_split()
    whole, part = distiller_of(split), distiller_of(split, max_queries=1)
    for distiller in (whole, part):
        begin(distiller.methods["rrd"], split)
    batch = batch_of(split, [0, 1, 30, 60], whole)  # three users, the first twice
    each = {losses_of(whole, batch_of(split, [pair], whole)).item() for pair in (0, 30, 60)}
    found = {round(losses_of(part, batch).mean().item(), 4) for _ in range(60)}
    assert found == {round(loss, 4) for loss in each}
    assert losses_of(whole, batch).mean().item() == pytest.approx(sum(each) / 3)


def test_gradient_reaches_the_ranked_and_nobody_else():
    split = set_split()
    distiller = distiller_of(split)
    begin(distiller.methods["rrd"], split)
    batch = batch_of(split, [0, 30], distiller)
    losses_of(distiller, batch).sum().backward()
    student = distiller.student
    lists = distiller.methods["rrd"].lists.of("t0", batch["query_ids"])
    assert set(student.user_embedding.weight.grad.abs().sum(1).nonzero().flatten().tolist()) == set(
        batch["user_ids"].tolist()
    )
    moved = set(student.item_embedding.weight.grad.abs().sum(1).nonzero().flatten().tolist())
    assert moved == set(lists.both.flatten().tolist()) - {0}


def test_training_teaches_the_order(tmp_path):
    """Alone, without the label: the student's top 4 become the teacher's."""
    split = set_split()
    method = RRD(RRDConfig(**{**CONFIG, "uninteresting": 6}))
    distiller = Distiller(mf(split, hidden_size=8), {"rrd": method}, {}, {"t": rankings(split, length=4)}, 0.0)
    settings = {"num_train_epochs": 12, "learning_rate": 0.05, "per_device_train_batch_size": 32, "logging_steps": 20}
    DistillationTrainer(distiller, arguments(tmp_path, **settings), dataset(split)).train()
    top = rankings(split, length=4).table("query_topk").long()
    scores = distiller.student.score(distiller.student(torch.arange(1, 25)).query_embeddings)
    for row, history in enumerate(split.train["item_ids"]):
        scores[row, history] = -torch.inf
    best = scores.topk(4, dim=1).indices
    assert (best[:, :, None] == top[:, None, :]).any(2).double().mean() > 0.9


def test_a_sequential_student_learns_too(tmp_path):
    split = tiny_split()
    teacher = export(tiny_sasrec(split, 1), split.train, split=split, part="train", k=6, filter_seen=True)
    student = tiny_sasrec(split, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    distiller = Distiller(student, {"rrd": RRD(RRDConfig(**CONFIG))}, {}, {"sasrec": teacher}, 0.0)
    trainer = DistillationTrainer(distiller, arguments(tmp_path, num_train_epochs=6), *parts(split))
    trainer.train()
    costs = [entry["loss_rrd"] for entry in trainer.state.log_history if "loss_rrd" in entry]
    assert costs[-1] < 0.9 * costs[0]


def test_large_scores_stay_finite():
    split = set_split()
    distiller = distiller_of(split, student=mf(split, initializer_range=30.0))  # scores of about 1e3
    begin(distiller.methods["rrd"], split)
    losses = losses_of(distiller, batch_of(split, [0, 30], distiller))
    losses.sum().backward()
    assert losses.isfinite().all() and distiller.student.item_embedding.weight.grad.isfinite().all()


def test_without_a_trainer_it_says_what_to_call():
    split = set_split()
    distiller = distiller_of(split)
    with pytest.raises(ConfigError, match="on_epoch_begin"):
        losses_of(distiller, batch_of(split, [0], distiller))

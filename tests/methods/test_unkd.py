from __future__ import annotations

from math import exp, log

import numpy as np
import pytest
import torch

from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, KnowledgeError
from seqkd.methods.unkd import UnKD, UnKDConfig, draw_pairs, geometric, pairwise, popularity_groups
from seqkd.recommenders.recommender import count_items
from seqkd.trainer import DistillationTrainer

from ..tiny import ITEMS, arguments
from .tiny_rankings import batch_of, dataset, mf, near, rankings, set_split, tensor, unfiltered

SPLIT = set_split()


def student_of(**config):
    student = mf(SPLIT, **config)
    student.set_catalogue(SPLIT.catalogue, count_items(SPLIT.train, ITEMS))
    return student


def distiller_of(student=None, teachers=1, **config):
    knowledge = {f"t{seed}": rankings(SPLIT, seed) for seed in range(teachers)}
    method = UnKD(UnKDConfig(**{"pairs": 4, "sampling_temperature": 2.0, **config}))
    return Distiller(student or student_of(), {"unkd": method}, {}, knowledge)


def losses_of(distiller, batch):
    output = distiller.student(user_ids=batch["user_ids"])
    return distiller.methods["unkd"](distiller.student, batch, output, distiller._knowledge_of(batch))


def test_groups_have_equal_popularity_and_never_cross():
    counts = torch.tensor([9.0, 1, 8, 0, 4, 2, 1, 0, 16])  # row 0 is padding; of the items, 32
    assert popularity_groups(counts, 2).tolist() == [2, 1, 1, 1, 1, 1, 1, 1, 0]
    assert popularity_groups(counts, 4).tolist() == [4, 3, 2, 3, 3, 3, 3, 3, 1]  # one item is half of everything
    draw = torch.Generator().manual_seed(0)
    counts = torch.cat([torch.zeros(1), torch.rand(5000, generator=draw) ** 8 * 100])
    groups = popularity_groups(counts, 5)
    shares = [float(counts[groups == group].sum() / counts.sum()) for group in range(5)]
    assert shares == pytest.approx([0.2] * 5, abs=0.01)
    assert all(counts[groups == g].min() >= counts[groups == g + 1].max() for g in range(4))


def test_pairs_are_of_one_group_and_in_the_teachers_order():
    torch.manual_seed(0)
    group_of = torch.tensor([2, 0, 1, 0, 1, 0, 1, 0, 1])
    ranking = torch.tensor([[8, 1, 2, 7, 3, 0], [1, 3, 5, 2, 0, 0], [0, 0, 0, 0, 0, 0]])
    better, worse = draw_pairs(ranking, group_of, 2, 200, 3.0)
    assert better.shape == worse.shape == (3, 400)
    for row, ones, others in zip(ranking.tolist(), better.tolist(), worse.tolist(), strict=True):
        for place, (one, other) in enumerate(zip(ones, others, strict=True)):
            assert bool(one) == bool(other)
            if one:
                assert group_of[one] == group_of[other] == place // 200 and row.index(one) < row.index(other)
    assert set(worse[0, :200].tolist()) == {0, 7, 3} and set(worse[0, 200:].tolist()) == {0, 2}
    assert not better[1, 200:].any()  # one item of that group is listed, which makes no pair
    assert not better[2].any()


def test_pairs_follow_the_law():
    """Both by exp(-rank / mu), unlike: the chance of ranks (a, b) is proportional to exp(-(a + b) / mu)."""
    torch.manual_seed(0)
    ranking, group_of = torch.tensor([[3, 1, 2]]), torch.tensor([1, 0, 0, 0])
    better, worse = draw_pairs(ranking, group_of, 1, 60_000, 1.5)
    found = [f"{a}{b}" for a, b in zip(better[0].tolist(), worse[0].tolist(), strict=True) if a]
    weights = np.exp(-np.array([1, 2, 3]) / 1.5)
    shares = [found.count(pair) / len(found) for pair in ("31", "32", "12")]
    np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.012)
    one = np.exp(-np.arange(3) / 1.5)
    both_alike = ((one / one.sum()) ** 2).sum()
    assert len(found) / 60_000 == pytest.approx(1 - both_alike, abs=0.01)


def test_ranks_stay_within_their_group():
    torch.manual_seed(0)
    ranks = geometric(torch.tensor([[0], [1], [7], [1000]]).expand(-1, 10_000), 50.0)
    assert ranks.min() == 0 and [row.max().item() for row in ranks[:3]] == [0, 0, 6] and 300 < ranks[3].max() < 1000


def test_each_distinct_query_costs_what_the_paper_says(monkeypatch):
    """Two teachers; the loop takes the pairs that were drawn, and scores them one by one."""
    distiller, drawn = distiller_of(teachers=2), []

    def remember(ranking, *settings):
        drawn.append((ranking, draw_pairs(ranking, *settings)))
        return drawn[-1][1]

    monkeypatch.setattr("seqkd.methods.unkd.draw_pairs", remember)
    torch.manual_seed(0)
    batch = batch_of(SPLIT, [0, 1, 2, 40, 60], distiller)
    losses = losses_of(distiller, batch)
    users, items = (
        table.weight.tolist() for table in (distiller.student.user_embedding, distiller.student.item_embedding)
    )
    costs, queries = [], sorted(set(batch["query_ids"].tolist()))
    for said, (ranking, (better, worse)) in zip(distiller.knowledge.values(), drawn, strict=True):
        assert torch.equal(ranking, said.table("query_topk")[queries].long())
        for at, query in enumerate(queries):
            scores = [sum(a * b for a, b in zip(users[query + 1], item, strict=True)) for item in items]
            pairs = [(a, b) for a, b in zip(better[at].tolist(), worse[at].tolist(), strict=True) if a]
            costs.append(sum(-log(1 / (1 + exp(scores[b] - scores[a]))) for a, b in pairs) / len(pairs))
    assert losses.shape == (5,) and losses.mean().item() == pytest.approx(sum(costs) / len(costs), rel=1e-5)


def test_the_loss_by_hand():
    better, worse = tensor([[log(3), 5.0, 0.0], [1, 2, 3]]).requires_grad_(), tensor([[0.0, 1.0, 0.0], [4, 5, 6]])
    empty = torch.tensor([[False, True, False], [True, True, True]])
    loss = pairwise(better, worse, empty)
    near(loss, [(log(4 / 3) + log(2)) / 2, 0])
    loss.sum().backward()
    near(better.grad, [[-0.125, 0, -0.25], [0, 0, 0]])


def test_gradient_raises_the_better_against_the_worse():
    distiller = distiller_of()
    torch.manual_seed(0)
    batch = batch_of(SPLIT, [0], distiller)
    losses_of(distiller, batch).sum().backward()
    student, query = distiller.student, int(batch["query_ids"][0])
    along = student.item_embedding.weight.grad @ student.user_embedding.weight[query + 1]
    top, groups = rankings(SPLIT).table("query_topk")[query].tolist(), distiller.methods["unkd"].group_of
    assert set(along.nonzero().flatten().tolist()) <= set(top)
    for group in range(2):  # the first of a group only ever wins, the last only ever loses
        mine = [item for item in top if groups[item] == group]
        assert len(mine) < 2 or (along[mine[0]] <= 0 <= along[mine[-1]])
    assert along.sum().abs() < 1e-6 < along.abs().sum()


def test_large_scores_stay_finite():
    distiller = distiller_of(student=student_of(initializer_range=30.0))
    losses = losses_of(distiller, batch_of(SPLIT, [0, 30], distiller))
    losses.sum().backward()
    assert losses.isfinite().all() and distiller.student.item_embedding.weight.grad.isfinite().all()


def test_training_teaches_the_order_within_groups(tmp_path):
    """Alone, without the label."""
    knowledge, student = {"t": rankings(SPLIT, length=10)}, student_of(hidden_size=8)
    method = UnKD(UnKDConfig(pairs=10, sampling_temperature=5.0))
    distiller = Distiller(student, {"unkd": method}, {}, knowledge, 0.0)
    settings = {"num_train_epochs": 10, "learning_rate": 0.05, "per_device_train_batch_size": 32, "logging_steps": 50}
    DistillationTrainer(distiller, arguments(tmp_path, **settings), dataset(SPLIT)).train()
    top = knowledge["t"].table("query_topk").long()
    with torch.no_grad():
        ours = student.score(student(torch.arange(1, 25)).query_embeddings).gather(1, top)
    groups = method.group_of[top]
    alike = (groups[:, :, None] == groups[:, None, :]) & torch.ones(10, 10, dtype=torch.bool).triu(1)
    assert (ours[:, :, None] > ours[:, None, :])[alike].double().mean() > 0.9


def test_what_is_popular_has_to_be_known():
    with pytest.raises(ConfigError, match="count_items"):
        distiller_of(student=mf(SPLIT))


def test_lists_of_what_users_have_are_refused():
    with pytest.raises(KnowledgeError, match=r"lists of 't' hold what users have already.*filter_seen=True"):
        Distiller(student_of(), {"unkd": UnKD()}, {}, {"t": unfiltered(rankings(SPLIT))})


@pytest.mark.parametrize("wrong", [{"groups": 0}, {"pairs": 0}, {"sampling_temperature": 0.0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        UnKDConfig(**wrong)

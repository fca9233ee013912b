"""CML: distances by hand, the unit ball, the weighted hinge pair by pair, known users, files, growth."""

from __future__ import annotations

import math

import pytest
import torch
from tests.tiny import ITEMS, USERS, arguments, tiny_split
from transformers import AutoModel

from seqkd.batches.collators import SequenceDataset
from seqkd.catalogue import Catalogue
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, DataError
from seqkd.knowledge.export import export
from seqkd.models.cml import CMLConfig, CMLModel
from seqkd.models.cml.modeling_cml import in_unit_ball
from seqkd.trainer import DistillationTrainer


def tiny(**settings):
    torch.manual_seed(0)
    model = CMLModel(CMLConfig(**{"num_users": 4, "num_items": 6, "hidden_size": 3, **settings})).eval().double()
    with torch.no_grad():
        for table in model.parameters():  # some points outside of the ball
            table.copy_(torch.randn(table.shape, dtype=torch.float64))
            table[0] = 0
    model.set_catalogue(Catalogue("abcdef"))
    model.set_users(Catalogue(["ann", "bob", "cem", "dea"]))
    return model


def distance(model, user, item):
    """Squared, between two points of the ball."""
    total = 0.0
    points = []
    for table, row in ((model.user_embedding, user), (model.item_embedding, item)):
        point = table.weight[row].tolist()
        length = math.sqrt(sum(x * x for x in point))
        points.append([x / max(length, 1.0) for x in point])
    for a, b in zip(*points, strict=True):
        total += (a - b) ** 2
    return total


def test_scores_are_negative_squared_distances():
    model = tiny()
    with torch.no_grad():
        queries = model(torch.arange(1, 5)).query_embeddings
        scores = model.score(queries)
        candidates = torch.tensor([[3, 6], [1, 1], [5, 2], [4, 4]])
        torch.testing.assert_close(model.score(queries, candidates), scores.gather(1, candidates))
        torch.testing.assert_close(queries @ model.item_embeddings().T[:, 1:], scores[:, 1:])
        torch.testing.assert_close(model.item_embeddings(torch.tensor([4, 1])), model.item_embeddings()[[4, 1]])
    for user in range(1, 5):
        for item in range(1, 7):
            assert scores[user - 1, item].item() == pytest.approx(-distance(model, user, item), rel=1e-9)
    assert queries.shape[1] == model.embedding_size == 5


def test_points_outside_come_to_the_surface_and_others_stay():
    points = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]], requires_grad=True)
    inside = in_unit_ball(points)
    torch.testing.assert_close(inside, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))
    (inside * torch.tensor([[0.6, 0.8], [1.0, 2.0], [1.0, 2.0]])).sum().backward()
    # a point outside moves along the surface only
    torch.testing.assert_close(points.grad, torch.tensor([[0.0, 0.0], [1.0, 2.0], [1.0, 2.0]]))


@pytest.mark.parametrize("rank_weight", [True, False])
def test_the_hinge_of_the_paper(rank_weight):
    model = tiny(margin=0.8, rank_weight=rank_weight)
    users, targets = torch.tensor([1, 2, 3]), torch.tensor([4, 1, 2])
    negatives = torch.tensor([[2, 3], [6, 5], [1, 3]])
    loss = model.training_loss(model(users), targets, None, negatives)
    weights = set()
    for row, (user, target) in enumerate(zip(users.tolist(), targets.tolist(), strict=True)):
        gaps = [0.8 + distance(model, user, target) - distance(model, user, k) for k in negatives[row].tolist()]
        impostors = sum(gap > 0 for gap in gaps)
        weight = math.log(6 * impostors // 2 + 1) if rank_weight else 1.0
        weights.add(weight)
        assert loss[row].item() == pytest.approx(weight * sum(max(gap, 0.0) for gap in gaps) / 2, rel=1e-9)
    assert not rank_weight or len(weights) > 1  # more than one rank occurred
    assert model.training_loss(model(users), torch.tensor([4, -100, 2]), None, negatives)[1] == 0


def test_gradient_reaches_the_rows_of_the_pair_alone():
    model = tiny(margin=4.0).train()
    model.training_loss(model(torch.tensor([2])), torch.tensor([1]), None, torch.tensor([[3, 5]])).sum().backward()
    assert model.user_embedding.weight.grad.any(dim=1).nonzero().flatten().tolist() == [2]
    assert model.item_embedding.weight.grad.any(dim=1).nonzero().flatten().tolist() == [1, 3, 5]


def test_without_drawn_negatives_it_draws():
    loss = tiny(margin=4.0, num_negatives=7).loss(tiny()(torch.tensor([1, 2])).query_embeddings, torch.tensor([1, 2]))
    assert loss.shape == (2,) and (loss > 0).all()


def test_far_away_is_finite():
    model = tiny().float().train()
    with torch.no_grad():
        model.user_embedding.weight.mul_(1e15)
    loss = model.training_loss(model(torch.tensor([1, 2])), torch.tensor([1, 2]), None, torch.tensor([[3], [4]]))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and all(torch.isfinite(table.grad).all() for table in model.parameters())


def test_it_learns_teaches_and_comes_back_whole(tmp_path):
    split = tiny_split()
    torch.manual_seed(0)
    student = CMLModel(CMLConfig(num_users=USERS, num_items=ITEMS, hidden_size=8, num_negatives=5))
    assert not student.user_embedding.weight[0].any() and student.item_embedding.weight[1:].std() > 0.05
    student.set_catalogue(split.catalogue)
    student.set_users(split.users)
    train, valid = (SequenceDataset(part, ITEMS, users=split.users) for part in (split.train, split.valid))
    settings = arguments(tmp_path / "run", num_train_epochs=8, learning_rate=0.02)
    trainer = DistillationTrainer(Distiller(student), settings, train, valid)
    before = trainer.evaluate()["eval_ndcg@10"]
    trainer.train()
    assert trainer.evaluate()["eval_ndcg@10"] > before + 0.1

    tables = ("query_topk", "query_embeddings", "item_embeddings", "item_topk")
    knowledge = export(student, split.train, split=split, part="train", tables=tables, k=5, dtype=torch.float32)
    told = knowledge.rows("query_embeddings", torch.tensor([0])) @ knowledge.table("item_embeddings").T
    best = told[:, 1:].topk(5).indices + 1
    assert torch.equal(best, knowledge.rows("query_topk", torch.tensor([0])).long())

    users, histories = list(split.users.item_ids[:3]), [["item1", "item2"]] * 3
    top = student.recommend(histories, k=5, users=users)
    student.save_pretrained(tmp_path / "cml")
    loaded = AutoModel.from_pretrained(tmp_path / "cml")
    assert isinstance(loaded, CMLModel)
    assert loaded.recommend(histories, k=5, users=users).item_ids == top.item_ids
    with pytest.raises(DataError, match="is unknown"):
        loaded.recommend([["item1"]], users=["nobody"])


def test_new_items_are_points():
    model = tiny()
    with torch.no_grad():
        before = model.score(model(torch.arange(1, 5)).query_embeddings)
        model.add_items(["g"], in_unit_ball(model.user_embedding.weight[[2]]))
        scores = model.score(model(torch.arange(1, 5)).query_embeddings)
    torch.testing.assert_close(scores[:, :7], before)
    assert abs(scores[1, 7].item()) < 1e-12  # where user 2 is


@pytest.mark.parametrize("settings", [{"margin": 0.0}, {"similarity": "cosine"}, {"loss_type": "bpr"}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        CMLConfig(**settings)

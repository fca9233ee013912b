"""NeuMF: both halves pair by pair, blocks, gradients, known users, files, growth."""

from __future__ import annotations

import math

import pytest
import torch
from tests.tiny import ITEMS, USERS, arguments, tiny_split
from transformers import AutoModel

from seqkd.batches.collators import SequenceDataset
from seqkd.catalogue import Catalogue
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, DataError, KnowledgeError
from seqkd.knowledge.export import export
from seqkd.models.neumf import NeuMFConfig, NeuMFModel
from seqkd.recommenders import wide_and_deep
from seqkd.trainer import DistillationTrainer


def tiny(**settings):
    torch.manual_seed(0)
    defaults = {"num_users": 4, "num_items": 6, "hidden_size": 3, "mlp_hidden_sizes": (5, 4)}
    model = NeuMFModel(NeuMFConfig(**{**defaults, **settings})).eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        for name, table in model.named_parameters():
            if "embedding" in name:
                table[0] = 0
    model.set_catalogue(Catalogue("abcdef"))
    model.set_users(Catalogue(["ann", "bob", "cem", "dea"]))
    return model


def logit(model, user, item):
    """Equation 12 of the paper for one pair."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    gmf = state["user_embedding.weight"][user] * state["item_embedding.weight"][item]
    hidden = torch.cat([state["mlp_user_embedding.weight"][user], state["mlp_item_embedding.weight"][item]])
    for layer in range(len(model.config.mlp_hidden_sizes)):
        hidden = (state[f"layers.{layer}.weight"] @ hidden + state[f"layers.{layer}.bias"]).clamp(min=0)
    h = torch.cat([state["gmf_output.weight"][0], state["output.weight"][0]])
    return float(h @ torch.cat([gmf, hidden]) + state["output.bias"])


@pytest.mark.parametrize("sizes", [(5,), (5, 4), (6, 3, 2)])
def test_scores_fuse_both_halves(sizes):
    model = tiny(mlp_hidden_sizes=sizes, temperature=2.0)
    with torch.no_grad():
        queries = model(torch.arange(1, 5)).query_embeddings
        scores = model.score(queries)
        candidates = torch.tensor([[3, 6], [1, 1], [5, 2], [4, 4]])
        torch.testing.assert_close(model.score(queries, candidates), scores.gather(1, candidates))
        torch.testing.assert_close(model.score(queries, torch.tensor([5, 2])), scores[:, [5, 2]])
    for user in range(1, 5):
        for item in range(1, 7):
            assert scores[user - 1, item].item() == pytest.approx(logit(model, user, item) / 2, rel=1e-9)
    assert queries.shape[1] == model.embedding_size == 3 + sizes[0]


@pytest.mark.parametrize("block", [5, 10, 40])
def test_blocks_change_nothing(monkeypatch, block):
    model = tiny()
    queries = model(torch.arange(1, 5)).query_embeddings
    whole = model.score(queries)
    monkeypatch.setattr(wide_and_deep, "BLOCK", block)
    monkeypatch.setattr(wide_and_deep, "KEEP", 0)
    torch.testing.assert_close(model.score(queries), whole)


def test_bce_by_hand():
    model = tiny().train()
    loss = model.training_loss(
        model(torch.tensor([1, 2])), torch.tensor([4, -100]), None, torch.tensor([[2, 3], [1, 6]])
    )
    positive, negatives = logit(model, 1, 4), [logit(model, 1, 2), logit(model, 1, 3)]
    expected = math.log1p(math.exp(-positive)) + sum(math.log1p(math.exp(negative)) for negative in negatives) / 2
    assert loss.tolist() == pytest.approx([expected, 0.0], rel=1e-9)


def test_gradient_reaches_the_rows_of_the_pair_alone():
    model = tiny().train()
    model.training_loss(model(torch.tensor([2])), torch.tensor([1]), None, torch.tensor([[3]])).sum().backward()
    for name, table in model.named_parameters():
        if "embedding" in name:
            rows = [2] if "user" in name else [1, 3]
            assert set(table.grad.any(dim=1).nonzero().flatten().tolist()) <= set(rows), name
    assert model.user_embedding.weight.grad[2].any() and model.gmf_output.weight.grad.any()


def test_large_scores_stay_finite():
    model = tiny().float().train()
    with torch.no_grad():
        model.gmf_output.weight.mul_(1e3)
    loss = model.training_loss(model(torch.tensor([1, 2])), torch.tensor([1, 2]), None, torch.tensor([[3], [4]]))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and all(torch.isfinite(each.grad).all() for each in model.parameters())


def test_it_learns_teaches_and_comes_back_whole(tmp_path):
    split = tiny_split()
    torch.manual_seed(0)
    student = NeuMFModel(NeuMFConfig(num_users=USERS, num_items=ITEMS, hidden_size=8, mlp_hidden_sizes=[16, 8]))
    assert not student.user_embedding.weight[0].any() and not student.mlp_item_embedding.weight[0].any()
    student.set_catalogue(split.catalogue)
    student.set_users(split.users)
    train, valid = (SequenceDataset(part, ITEMS, users=split.users) for part in (split.train, split.valid))
    settings = arguments(tmp_path / "run", num_train_epochs=12, learning_rate=0.02)
    trainer = DistillationTrainer(Distiller(student), settings, train, valid)
    before = trainer.evaluate()["eval_ndcg@10"]
    trainer.train()
    assert trainer.evaluate()["eval_ndcg@10"] > before + 0.1

    knowledge = export(student, split.train, split=split, part="train", tables=("query_topk", "item_topk"), k=5)
    assert knowledge.table("item_topk").shape == (ITEMS + 1, 5)
    with pytest.raises(KnowledgeError, match="dot product"):
        export(student, split.train, split=split, part="train", tables=("query_embeddings",))

    users, histories = list(split.users.item_ids[:3]), [["item1", "item2"]] * 3
    top = student.recommend(histories, k=5, users=users)
    student.save_pretrained(tmp_path / "neumf")
    loaded = AutoModel.from_pretrained(tmp_path / "neumf")
    assert isinstance(loaded, NeuMFModel)
    assert loaded.recommend(histories, k=5, users=users).item_ids == top.item_ids
    with pytest.raises(DataError, match="is unknown"):
        loaded.recommend([["item1"]], users=["nobody"])


def test_new_items_leave_the_old_as_they_were():
    model = tiny()
    with torch.no_grad():
        before = model.score(model(torch.arange(1, 5)).query_embeddings)
        model.add_items(["g"], torch.ones(1, 3))
        scores = model.score(model(torch.arange(1, 5)).query_embeddings)
    torch.testing.assert_close(scores[:, :7], before)
    assert scores[2, 7].item() == pytest.approx(logit(model, 3, 7), rel=1e-9)


@pytest.mark.parametrize(
    "settings",
    [{"mlp_hidden_sizes": ()}, {"dropout_prob": 1.0}, {"similarity": "cosine"}, {"loss_type": "softmax"}],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        NeuMFConfig(**settings)

"""Mult-VAE and Mult-DAE: the paper's equations user by user, annealing, unknown users, one encoding a step, growth."""

from __future__ import annotations

import math

import pytest
import torch
from tests.tiny import ITEMS, USERS, arguments, tiny_split
from transformers import AutoModel

from seqkd.batches.collators import SequenceDataset
from seqkd.batches.edges import edges_of
from seqkd.catalogue import Catalogue
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, DataError
from seqkd.models.multvae import MultVAEConfig, MultVAEModel
from seqkd.trainer import DistillationTrainer

EDGES = torch.tensor([[1, 1, 2, 2, 2, 3], [1, 2, 2, 3, 5, 4]])  # item 6 is nobody's, user 4 has nothing
HAVE = {1: [1, 2], 2: [2, 3, 5], 3: [4], 4: []}


def tiny(scale=2.0, **settings):
    torch.manual_seed(0)
    defaults = {"num_users": 4, "num_items": 6, "hidden_size": 5, "latent_size": 3, "dropout_prob": 0.0}
    model = MultVAEModel(MultVAEConfig(**{**defaults, **settings}), EDGES).eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=scale / 2)
        model.encoder.table.weight[0] = model.item_embedding.weight[0] = 0
    model.set_catalogue(Catalogue("abcdef"))
    model.set_users(Catalogue(["ann", "bob", "cem", "dea"]))
    return model


def by_the_paper(model, items, noise=None):
    """Logits over items 1..I and the divergence of one user, by matrices (sections 2.1 and 2.2)."""
    state = model.state_dict()
    x = torch.zeros(model.config.num_items, dtype=torch.float64)
    x[[item - 1 for item in items]] = 1
    x = x / max(x.norm(), 1)
    hidden = torch.tanh(x @ state["encoder.table.weight"][1:] + state["encoder.bias"])
    told = state["posterior.weight"] @ hidden + state["posterior.bias"]
    size, divergence = model.config.latent_size, 0.0
    latent = told[:size]
    if model.config.variational:
        for mean, log_variance in zip(told[:size].tolist(), told[size:].tolist(), strict=True):
            divergence += 0.5 * (math.exp(log_variance) + mean**2 - 1 - log_variance)
        if noise is not None:
            latent = latent + noise * (told[size:] / 2).exp()
    hidden = torch.tanh(state["decoder.weight"] @ latent + state["decoder.bias"])
    rows = state["item_embedding.weight"][1:]
    return rows[:, :-1] @ hidden + rows[:, -1], divergence


@pytest.mark.parametrize("variational", [True, False])
def test_scores_are_the_decoders_logits(variational):
    model = tiny(variational=variational)
    output = model(torch.tensor([2, 1, 4]))
    scores = model.score(output.query_embeddings)
    for row, user in enumerate([2, 1, 4]):
        logits, divergence = by_the_paper(model, HAVE[user])
        torch.testing.assert_close(scores[row, 1:], logits, rtol=1e-9, atol=1e-12)
        assert output.divergence[row].item() == pytest.approx(divergence, rel=1e-9)
    candidates = torch.tensor([[3, 6], [1, 1], [5, 2]])
    torch.testing.assert_close(model.score(output.query_embeddings, candidates), scores.gather(1, candidates))
    torch.testing.assert_close(model.user_embeddings(torch.tensor([2, 1])), output.query_embeddings[:2])
    assert output.query_embeddings.shape == (3, model.embedding_size)


def test_the_mean_over_an_epochs_pairs_is_the_papers_elbo(monkeypatch):
    model = tiny(kl_weight=0.7, anneal_epochs=0).train()
    draws = torch.randn(3, 3, dtype=torch.float64)  # of users 1, 2 and 3
    monkeypatch.setattr(torch, "randn_like", lambda mean: draws)
    loss = model.training_loss(model(EDGES[0]), EDGES[1])
    total = 0.0
    for user in (1, 2, 3):
        logits, divergence = by_the_paper(model, HAVE[user], draws[user - 1])
        elbo = sum(float(logits[item - 1] - logits.logsumexp(0)) for item in HAVE[user]) - 0.7 * divergence
        assert loss[EDGES[0] == user].tolist() == pytest.approx([-elbo / len(HAVE[user])] * len(HAVE[user]), rel=1e-9)
        total -= elbo
    assert loss.mean().item() == pytest.approx(total / 6, rel=1e-9)


def test_a_user_is_encoded_once_a_step(monkeypatch):
    model = tiny(dropout_prob=0.5).train()
    encoded, encode = [], model.encoder.forward
    monkeypatch.setattr(model.encoder, "forward", lambda sets: encoded.append(len(sets)) or encode(sets))
    output = model(torch.tensor([2, 1, 2, 2]), torch.zeros(4, 0, dtype=torch.long))
    assert encoded == [2]
    assert torch.equal(output.query_embeddings[0], output.query_embeddings[2])
    loss = model.training_loss(output, torch.tensor([2, -100, 3, 5]))
    assert loss[1] == 0 and loss[0] == loss[2] == loss[3] > 0


def test_dropout_is_on_the_input_of_training_alone():
    model = tiny(variational=False, dropout_prob=0.5)
    assert torch.equal(model(torch.tensor([2])).query_embeddings, model(torch.tensor([2])).query_embeddings)
    model.train()
    torch.manual_seed(0)
    seen = {tuple(model(torch.tensor([2])).query_embeddings[0].tolist()) for _ in range(200)}
    assert len(seen) == 2**3  # each of three items is there or not


def test_the_divergence_is_annealed_by_epochs():
    model = tiny(kl_weight=0.2, anneal_epochs=4)
    assert model.beta == 0.2
    collator = model.collator(training=True)
    found = []
    for collator.epoch in (0, 1, 4, 9):
        found.append(model.beta)
    assert found == pytest.approx([0.0, 0.05, 0.2, 0.2])


def test_gradient_reaches_members_and_all_of_the_decoder():
    model = tiny().train()
    model.training_loss(model(torch.tensor([1])), torch.tensor([1])).sum().backward()
    assert model.encoder.table.weight.grad.any(dim=1).nonzero().flatten().tolist() == [1, 2]
    assert model.item_embedding.weight.grad.any(dim=1).tolist() == [False] + [True] * 6
    assert model.posterior.weight.grad.any() and model.decoder.weight.grad.any()


def test_loss_is_finite_at_large_logits():
    model = tiny(variational=False)
    with torch.no_grad():
        model.item_embedding.weight.mul_(1e3)
    model.float().train()
    loss = model.training_loss(model(EDGES[0]), EDGES[1])
    loss.sum().backward()
    assert torch.isfinite(loss).all() and all(torch.isfinite(each.grad).all() for each in model.parameters())


def test_the_history_of_a_new_user_is_a_set():
    model = tiny()
    histories = torch.tensor([[5, 2, 5, 3, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    embedded = model(torch.tensor([0, 2, 0]), histories).query_embeddings
    known = model(torch.tensor([2])).query_embeddings[0]
    torch.testing.assert_close(embedded[:2], torch.stack([known, known]))
    torch.testing.assert_close(model.score(embedded)[2, 1:], by_the_paper(model, [1])[0])
    with pytest.raises(DataError, match="no histories"):
        model(torch.tensor([0]))


def test_unknown_users_are_recommended_to_by_history():
    model = tiny()
    found = model.recommend([["a", "b"], ["e"], []], k=3, users=["ann", "eve", "zoe"])
    assert found.from_popularity == [False, False, True]
    logits, _ = by_the_paper(model, [5])
    logits[4] = -math.inf
    assert found.item_ids[1] == model.catalogue.decode((logits.topk(3).indices + 1).tolist())


def test_new_items_leave_the_old_as_they_were():
    model = tiny()
    with torch.no_grad():
        before, reader = model.score(model(torch.arange(1, 5)).query_embeddings), model.encoder.table.weight.clone()
        row = torch.tensor([[0.0, 0, 0, 0, 0, 9.0]])
        model.add_items(["g"], row)
        scores = model.score(model(torch.arange(1, 5)).query_embeddings)
        torch.testing.assert_close(scores[:, :7], before)
        torch.testing.assert_close(scores[:, 7], torch.full((4,), 9.0, dtype=torch.float64))
        torch.testing.assert_close(model.encoder.table.weight[7], reader[1:].mean(0))
    assert "g" not in model.recommend([["g"]], k=7).item_ids[0]


@pytest.mark.parametrize("variational", [True, False])
def test_it_learns_and_comes_back_whole(variational, tmp_path):
    split = tiny_split()
    torch.manual_seed(0)
    train = SequenceDataset(split.train, ITEMS, users=split.users)
    config = MultVAEConfig(
        num_users=USERS, num_items=ITEMS, hidden_size=16, latent_size=8, anneal_epochs=2, variational=variational
    )
    student = MultVAEModel(config, edges_of(train))
    student.set_catalogue(split.catalogue)
    student.set_users(split.users)
    valid = SequenceDataset(split.valid, ITEMS, users=split.users)
    settings = arguments(tmp_path / "run", num_train_epochs=8, learning_rate=0.01)
    trainer = DistillationTrainer(Distiller(student), settings, train, valid)
    before = trainer.evaluate()["eval_ndcg@10"]
    assert trainer.train().training_loss < math.log(ITEMS)
    assert trainer.evaluate()["eval_ndcg@10"] > before + 0.1
    assert not student.encoder.table.weight[0].any() and not student.item_embedding.weight[0].any()

    users, histories = [*split.users.item_ids[:3], "nobody"], [["item1", "item2"]] * 4
    top = student.recommend(histories, k=5, users=users)
    student.save_pretrained(tmp_path / "multvae")
    loaded = AutoModel.from_pretrained(tmp_path / "multvae")
    assert isinstance(loaded, MultVAEModel) and torch.equal(loaded.edges, student.edges)
    again = loaded.recommend(histories, k=5, users=users)
    assert again.item_ids == top.item_ids


def test_without_interactions_it_says_so():
    with pytest.raises(ConfigError, match="set_edges"):
        MultVAEModel(MultVAEConfig(num_users=4, num_items=6))(torch.tensor([1]))


@pytest.mark.parametrize(
    "settings",
    [
        {"latent_size": 0},
        {"dropout_prob": 1.0},
        {"kl_weight": -0.1},
        {"anneal_epochs": -1},
        {"similarity": "cosine"},
        {"loss_type": "bpr"},
        {"num_edges": -1},
    ],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        MultVAEConfig(**settings)


def test_new_users_have_no_row():
    model = tiny()
    model.set_users(Catalogue(f"u{n}" for n in range(1, model.config.num_users + 1)))
    with pytest.raises(ConfigError, match="no user table"):
        model.add_users(["ann"], torch.zeros(1, 4))
    model.add_users(["ann"])
    assert model.config.num_users == len(model.users)

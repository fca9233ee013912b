"""The item autoencoder: logits and multinomial by matrices, tables for serving, known users only, new items."""

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
from seqkd.models.itemae import ItemAEConfig, ItemAEModel
from seqkd.trainer import DistillationTrainer

EDGES = torch.tensor([[1, 1, 2, 2, 2, 3], [1, 2, 2, 3, 5, 4]])  # item 6 is nobody's, user 4 has nothing
USERS_OF = {1: [1], 2: [1, 2], 3: [2], 4: [3], 5: [2], 6: []}


def tiny(**settings):
    torch.manual_seed(0)
    defaults = {"num_users": 4, "num_items": 6, "hidden_size": 3, "dropout_prob": 0.0}
    model = ItemAEModel(ItemAEConfig(**{**defaults, **settings}), EDGES).eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
        model.encoder.table.weight[0] = model.user_embedding.weight[0] = 0
    model.set_catalogue(Catalogue("abcdef"))
    model.set_users(Catalogue(["ann", "bob", "cem", "dea"]))
    return model


def logits_of(model, item):
    """Of users 1..U, by matrices."""
    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    x = torch.zeros(model.config.num_users, dtype=torch.float64)
    x[[user - 1 for user in USERS_OF[item]]] = 1
    x = x / max(x.norm(), 1)
    hidden = torch.tanh(x @ state["encoder.table.weight"][1:] + state["encoder.bias"])
    rows = state["user_embedding.weight"][1:]
    return rows[:, :-1] @ hidden + rows[:, -1]


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("prior", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_scores_rank_items_by_the_rule_of_bayes_or_by_the_bare_logit(gradients, prior, temperature):
    model = tiny(item_prior=prior, temperature=temperature)
    with torch.set_grad_enabled(gradients):
        queries = model(torch.arange(1, 5)).query_embeddings
        scores = model.score(queries).detach()
        candidates = torch.tensor([[3, 6], [1, 1], [5, 2], [4, 4]])
        torch.testing.assert_close(model.score(queries, candidates).detach(), scores.gather(1, candidates))
        torch.testing.assert_close(model.item_embeddings(torch.tensor([4, 1])), model.item_embeddings()[[4, 1]])
        assert not model.item_embeddings()[0].any()
    for item, users in USERS_OF.items():
        logits = logits_of(model, item) / temperature
        likelihood = logits - logits.logsumexp(0) + math.log(max(len(users), 0.5))
        torch.testing.assert_close(scores[:, item], likelihood if prior else logits)
    assert queries.shape[1] == model.item_embeddings().shape[1] == model.embedding_size
    assert (scores[:, 0] == torch.finfo(scores.dtype).min).all()


def test_an_item_that_all_like_is_not_for_one_who_likes_it_most():
    """Users 1 and 2, items with the logits (3, 3) and (1, 0), a user each: p(user 1 | item) is .50 and .73."""
    config = ItemAEConfig(num_users=2, num_items=2, hidden_size=1)
    model = ItemAEModel(config, torch.tensor([[1, 2], [1, 2]])).eval()
    with torch.no_grad():
        model.encoder.table.weight[1:] = torch.tensor([[-9.0], [9.0]])
        model.encoder.bias.zero_()  # codes -1 and 1
        model.user_embedding.weight[1:] = torch.tensor([[-1.0, 2.0], [-1.5, 1.5]])  # logits -w + b and w + b
        scores = model.score(model(torch.tensor([1, 2])).query_embeddings)
    assert scores[:, 1:].argmax(dim=1).tolist() == [1, 0], "the bare logits would give item 1 to both"
    odds = scores[:, 2] - scores[:, 1]
    torch.testing.assert_close(
        odds, torch.tensor([0.73106, 0.26894], dtype=odds.dtype).div(0.5).log(), atol=1e-4, rtol=0
    )


def test_the_mean_over_an_epochs_pairs_is_the_multinomial_of_all_items():
    model = tiny().train()
    loss = model.training_loss(model(EDGES[0]), EDGES[1])
    total = 0.0
    for item, users in list(USERS_OF.items())[:5]:
        logits = logits_of(model, item)
        whole = -sum(float(logits[user - 1] - logits.logsumexp(0)) for user in users)
        assert loss[EDGES[1] == item].tolist() == pytest.approx([whole / len(users)] * len(users), rel=1e-9)
        total += whole
    assert loss.mean().item() == pytest.approx(total / 6, rel=1e-9)


def test_unlabelled_queries_cost_nothing():
    model = tiny().train()
    output = model(torch.tensor([1, 2, 3]))
    loss = model.training_loss(output, torch.tensor([2, -100, 4]))
    assert loss[1] == 0 and (loss[[0, 2]] > 0).all()
    assert not model.training_loss(output, torch.tensor([-100, -100, -100])).any()


def test_an_item_is_encoded_once_a_step(monkeypatch):
    model = tiny().train()
    encoded, encode = [], model.encoder.forward
    monkeypatch.setattr(model.encoder, "forward", lambda sets: encoded.append(len(sets)) or encode(sets))
    model.training_loss(model(torch.tensor([1, 2, 2])), torch.tensor([2, 2, 5]))
    assert encoded == [2]


@pytest.mark.parametrize("change", ["step", "load", "edges", "dtype"])
def test_serving_encodes_once_until_something_changes(monkeypatch, change):
    model = tiny()
    encoded, encode = [], model.encoder.forward
    monkeypatch.setattr(model.encoder, "forward", lambda sets: encoded.append(len(sets)) or encode(sets))

    def served():
        with torch.no_grad():
            return model.item_embeddings().clone()

    before = served()
    assert torch.equal(served(), before) and encoded == [7]
    if change == "step":
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)  # leaves no trace in version counters
        model.item_embeddings().sum().backward()
        optimizer.step()
    elif change == "load":
        model.load_state_dict({name: tensor / 2 for name, tensor in model.state_dict().items()})
        model.set_edges(EDGES)
    elif change == "edges":
        model.set_edges(EDGES[:, :4])
    else:
        model.float()
    again = served()
    assert again.dtype != before.dtype or not torch.equal(again, before)


def test_gradient_reaches_the_items_users_and_all_rows_of_the_softmax():
    model = tiny().train()
    model.training_loss(model(torch.tensor([1])), torch.tensor([2])).sum().backward()
    assert model.encoder.table.weight.grad.any(dim=1).nonzero().flatten().tolist() == [1, 2]
    assert model.user_embedding.weight.grad.any(dim=1).tolist() == [False] + [True] * 4


def test_loss_is_finite_at_large_logits():
    model = tiny()
    with torch.no_grad():
        model.user_embedding.weight.mul_(1e3)
    model.float().train()
    loss = model.training_loss(model(EDGES[0]), EDGES[1])
    loss.sum().backward()
    assert torch.isfinite(loss).all() and all(torch.isfinite(each.grad).all() for each in model.parameters())


def test_new_items_are_the_empty_set():
    model = tiny()
    with torch.no_grad():
        before = model.score(model(torch.arange(1, 5)).query_embeddings)
        model.add_items(["g"])
        scores = model.score(model(torch.arange(1, 5)).query_embeddings)
    torch.testing.assert_close(scores, torch.cat([before, before[:, 6:]], dim=1))
    with pytest.raises(ConfigError, match="no item table"):
        model.add_items(["h"], torch.zeros(1, 5))
    with pytest.raises(DataError, match="already in the catalogue"):
        model.add_items(["a"])


def test_it_learns_and_comes_back_whole(tmp_path):
    split = tiny_split()
    torch.manual_seed(0)
    train = SequenceDataset(split.train, ITEMS, users=split.users)
    student = ItemAEModel(ItemAEConfig(num_users=USERS, num_items=ITEMS, hidden_size=16), edges_of(train))
    student.set_catalogue(split.catalogue)
    student.set_users(split.users)
    valid = SequenceDataset(split.valid, ITEMS, users=split.users)
    settings = arguments(tmp_path / "run", num_train_epochs=8, learning_rate=0.01)
    trainer = DistillationTrainer(Distiller(student), settings, train, valid)
    before = trainer.evaluate()["eval_ndcg@10"]
    assert trainer.train().training_loss < math.log(USERS)
    assert trainer.evaluate()["eval_ndcg@10"] > before + 0.1

    users, histories = list(split.users.item_ids[:3]), [["item1", "item2"]] * 3
    top = student.recommend(histories, k=5, users=users)
    student.save_pretrained(tmp_path / "itemae")
    loaded = AutoModel.from_pretrained(tmp_path / "itemae")
    assert isinstance(loaded, ItemAEModel)
    assert loaded.recommend(histories, k=5, users=users).item_ids == top.item_ids
    with pytest.raises(DataError, match="is unknown"):
        loaded.recommend([["item1"]], users=["nobody"])


def test_what_it_cannot_do_is_said():
    with pytest.raises(ConfigError, match="set_edges"):
        ItemAEModel(ItemAEConfig(num_users=4, num_items=6)).item_embeddings()
    with pytest.raises(ConfigError, match="training_loss"):
        tiny().loss(torch.zeros(1, 5), torch.tensor([1]))


@pytest.mark.parametrize("settings", [{"dropout_prob": 1.0}, {"similarity": "cosine"}, {"loss_type": "softmax"}])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        ItemAEConfig(**settings)

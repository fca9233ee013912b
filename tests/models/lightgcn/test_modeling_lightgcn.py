"""LightGCN: one propagation a step, tables that follow the weights, regularisation, new users and items, files."""

from __future__ import annotations

import json
import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from tests.tiny import ITEMS, USERS, arguments, tiny_split
from transformers import AutoConfig, AutoModel

from seqkd.batches.collators import SequenceDataset
from seqkd.catalogue import Catalogue
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, DataError
from seqkd.models.lightgcn import LightGCNConfig, LightGCNModel, edges_of, modeling_lightgcn
from seqkd.recommenders.recommender import count_items
from seqkd.trainer import DistillationTrainer

EDGES = torch.tensor([[1, 1, 2, 2, 2, 3], [1, 2, 2, 3, 5, 4]])  # item 6 is nobody's, user 4 has nothing


def tiny(**settings):
    torch.manual_seed(0)
    defaults = {"num_users": 4, "num_items": 6, "hidden_size": 3, "num_layers": 2, "initializer_range": 1.0}
    model = LightGCNModel(LightGCNConfig(**{**defaults, **settings}), EDGES).eval().double()
    model.set_catalogue(Catalogue("abcdef"))
    model.set_users(Catalogue(["ann", "bob", "cem", "dea"]))
    return model


def propagations(monkeypatch):
    """How often tables are propagated from now on."""
    calls = []
    propagate = modeling_lightgcn.mean_of_layers
    monkeypatch.setattr(modeling_lightgcn, "mean_of_layers", lambda *given: calls.append(given[3]) or propagate(*given))
    return calls


def by_dense_matrix(model):
    """Users and items by the paper's equations, recomputed from the weights as they are now."""
    users, items = model.user_embedding.weight.detach(), model.item_embedding.weight.detach()
    size = len(users)
    matrix = torch.zeros(size + len(items), size + len(items), dtype=torch.float64)
    matrix[model.edges[0].long(), size + model.edges[1].long()] = 1
    matrix += matrix.T.clone()
    scale = matrix.sum(1).clamp(min=1).rsqrt()
    matrix = scale[:, None] * matrix * scale
    layer = total = torch.cat([users, items])
    for _ in range(model.config.num_layers):
        layer = matrix @ layer
        total = total + layer
    return (total / (model.config.num_layers + 1)).split([size, len(items)])


def agrees(model):
    users, items = by_dense_matrix(model)
    with torch.no_grad():
        torch.testing.assert_close(model(torch.arange(1, 5)).query_embeddings, users[1:])
        torch.testing.assert_close(model.user_embeddings(torch.tensor([3, 1])), users[[3, 1]])
        torch.testing.assert_close(model.item_embeddings()[1:], items[1:])
        torch.testing.assert_close(model.item_embeddings(torch.tensor([[2, 6]])), items[[2, 6]][None])
    return True


# ---- one propagation a step, and never an old one -----------------------------------------------------------------


def test_a_training_step_propagates_once(monkeypatch):
    model = tiny(edge_dropout=0.5, loss_type="bpr").train()
    calls = propagations(monkeypatch)
    for step in (1, 2):
        output = model(torch.tensor([1, 2]))
        loss = model.training_loss(output, torch.tensor([1, 3]), negatives=torch.tensor([[4], [6]]))
        loss = loss.sum() + model.item_embeddings().sum() + model.item_embeddings(torch.tensor([2])).sum()
        loss.backward()
        assert len(calls) == step


def test_what_follows_in_a_step_sees_the_same_dropout():
    model = tiny(edge_dropout=0.5).train()
    drawn = []
    for _ in range(8):
        model(torch.tensor([1]))
        drawn.append(model.item_embeddings().detach())
        torch.testing.assert_close(model.item_embeddings(torch.tensor([5])), model.item_embeddings()[[5]])
    assert any(not torch.equal(drawn[0], other) for other in drawn[1:])
    model.eval()
    assert agrees(model)


def test_weights_that_change_within_a_step_are_seen():
    model = tiny().train()
    model(torch.tensor([1]))
    before = model.item_embeddings().detach().clone()
    with torch.no_grad():
        model.item_embedding.weight.mul_(2)
    assert not torch.equal(model.item_embeddings(), before)


def test_without_a_step_a_loss_still_has_its_gradient():
    model = tiny().train()
    with torch.no_grad():
        model(torch.tensor([1]))
        model.item_embeddings()
    for _ in range(2):
        model.zero_grad()
        model.item_embeddings()[1].sum().backward()
        assert model.item_embedding.weight.grad.any() and model.user_embedding.weight.grad.any()


def test_a_step_lets_go_of_its_tables():
    model = tiny().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)  # leaves no trace in version counters
    model(torch.tensor([1])).query_embeddings.sum().backward()
    optimizer.step()
    torch.testing.assert_close(model.item_embeddings(), by_dense_matrix(model)[1])


def test_two_losses_of_one_step_may_go_back_one_by_one():
    model = tiny(reg_weight=0.0).train()
    output = model(torch.tensor([1, 2]))
    items = model.item_embeddings(torch.tensor([3]))
    output.query_embeddings.sum().backward(retain_graph=True)
    items.sum().backward()
    apart = model.item_embedding.weight.grad.clone()
    model.zero_grad()
    (model(torch.tensor([1, 2])).query_embeddings.sum() + model.item_embeddings(torch.tensor([3])).sum()).backward()
    torch.testing.assert_close(apart, model.item_embedding.weight.grad)


@pytest.mark.parametrize("change", ["step", "load", "edges", "in place", "dtype"])
def test_serving_propagates_once_until_something_changes(monkeypatch, change):
    model = tiny()
    calls = propagations(monkeypatch)
    assert agrees(model) and agrees(model) and len(calls) == 1
    if change == "step":
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=True)  # leaves no trace in version counters
        (model(torch.tensor([1])).query_embeddings @ model.item_embeddings().T).sum().backward()
        optimizer.step()
    elif change == "load":
        model.load_state_dict(tiny(initializer_range=0.5).state_dict())
    elif change == "edges":
        model.set_edges(EDGES[:, :4])
    elif change == "in place":
        with torch.no_grad():
            model.edges[1, -1] = 6
    else:
        model.float().double()
    assert agrees(model)


def test_similarity_cosine():
    model = tiny(similarity="cosine")
    users, items = by_dense_matrix(model)
    scores = model.score(model(torch.tensor([1, 2])).query_embeddings)
    cosines = torch.nn.functional.cosine_similarity(users[[1, 2], None], items[None, 1:], dim=2)
    torch.testing.assert_close(scores[:, 1:], cosines)


# ---- the loss -----------------------------------------------------------------------------------------------------


def test_regularisation_by_hand():
    model, plain = tiny(reg_weight=0.5), tiny(reg_weight=0.0)
    users, targets, negatives = torch.tensor([1, 2]), torch.tensor([1, -100]), torch.tensor([[4, 6], [1, 2]])
    with_it, without = (each.training_loss(each(users), targets, None, negatives) for each in (model, plain))
    user, item = model.user_embedding.weight.detach(), model.item_embedding.weight.detach()
    norms = [float((row * row).sum()) for row in (user[1], item[1], item[4], item[6])]
    expected = 0.5 * 0.5 * (norms[0] + norms[1] + (norms[2] + norms[3]) / 2)
    assert (with_it - without).tolist() == pytest.approx([expected, 0.0])
    assert without[1] == 0


def test_regularisation_reaches_the_pair_before_propagation_only():
    model, plain = tiny(reg_weight=1.0).train(), tiny(reg_weight=0.0).train()
    for each in (model, plain):
        each.training_loss(each(torch.tensor([3])), torch.tensor([4]), None, torch.tensor([[6]])).sum().backward()
    difference = model.item_embedding.weight.grad - plain.item_embedding.weight.grad
    torch.testing.assert_close(difference[[4, 6]], model.item_embedding.weight.detach()[[4, 6]])
    assert difference.any(dim=1).nonzero().flatten().tolist() == [4, 6]


def test_loss_is_finite_at_large_scores():
    model = tiny(initializer_range=1e3).float().train()
    loss = model.training_loss(model(torch.tensor([1, 2])), torch.tensor([4, 3]), None, torch.tensor([[2], [6]]))
    loss.sum().backward()
    assert torch.isfinite(loss).all() and torch.isfinite(model.item_embedding.weight.grad).all()


# ---- users who are not in the graph -------------------------------------------------------------------------------


def test_a_folded_in_user_is_a_known_one_without_layer_0():
    model = tiny(num_layers=3)
    histories = torch.tensor([[2, 1, 0, 0], [5, 2, 5, 3]])  # of users 1 and 2; item 5 twice
    folded = model(torch.tensor([0, 0]), histories).query_embeddings
    known = model(torch.tensor([1, 2])).query_embeddings
    torch.testing.assert_close(folded, known - model.user_embedding.weight[[1, 2]] / 4)
    mixed = model(torch.tensor([2, 0]), histories.flip(0)).query_embeddings
    torch.testing.assert_close(mixed, torch.stack([known[1], folded[0]]))


def test_an_item_without_edges_is_read_as_if_this_user_had_it():
    model = tiny(num_layers=1)
    folded = model(torch.tensor([0]), torch.tensor([[6]])).query_embeddings
    torch.testing.assert_close(folded, model.item_embedding.weight[[6]] / 2)
    assert not model(torch.tensor([0]), torch.tensor([[0, 0]])).query_embeddings.any()


def test_unknown_users_are_recommended_to_by_history():
    model = tiny()
    found = model.recommend([["a", "b"], ["e"], []], k=3, users=["ann", "eve", "zoe"])
    assert found.from_popularity == [False, False, True]
    scores = (model(torch.tensor([0]), torch.tensor([[5]])).query_embeddings @ model.item_embeddings().T)[0]
    scores[[0, 5]] = -math.inf
    assert found.item_ids[1] == model.catalogue.decode(scores.topk(3).indices.tolist())
    with pytest.raises(DataError, match="no histories"):
        model(torch.tensor([0]))


# ---- training, files, growth --------------------------------------------------------------------------------------


def student_of(split, **settings):
    torch.manual_seed(0)
    defaults = {"num_users": USERS, "num_items": ITEMS, "hidden_size": 8, "num_layers": 2}
    train = SequenceDataset(split.train, ITEMS, users=split.users)
    student = LightGCNModel(LightGCNConfig(**{**defaults, **settings}), edges_of(train))
    student.set_catalogue(split.catalogue, count_items(split.train, ITEMS))
    student.set_users(split.users)
    return student, train


def test_it_learns_and_comes_back_whole(tmp_path):
    split = tiny_split()
    student, train = student_of(split, edge_dropout=0.1)
    valid = SequenceDataset(split.valid, ITEMS, users=split.users)
    settings = arguments(tmp_path / "run", num_train_epochs=5, learning_rate=0.03)
    trainer = DistillationTrainer(Distiller(student), settings, train, valid)
    before = trainer.evaluate()["eval_ndcg@10"]
    assert trainer.train().training_loss < 0.6 < math.log(2)
    assert trainer.evaluate()["eval_ndcg@10"] > before
    assert not student.user_embedding.weight[0].any() and not student.item_embedding.weight[0].any()

    users, histories = [*split.users.item_ids[:3], "nobody"], [["item1", "item2"]] * 4
    top = student.recommend(histories, k=5, users=users)
    student.save_pretrained(tmp_path / "lightgcn")
    loaded = AutoModel.from_pretrained(tmp_path / "lightgcn")
    assert isinstance(loaded, LightGCNModel)
    assert AutoConfig.from_pretrained(tmp_path / "lightgcn").num_edges == len(edges_of(train)[0])
    assert torch.equal(loaded.edges, student.edges) and loaded.edges.dtype == torch.int32
    again = loaded.recommend(histories, k=5, users=users)
    assert (again.item_ids, again.scores) == (top.item_ids, top.scores)


@pytest.mark.parametrize("loss_type", ["bpr", "gbce", "sampled_softmax", "softmax"])
def test_every_loss_trains_it(loss_type, tmp_path):
    split = tiny_split()
    reg_weight = 0.0 if loss_type == "softmax" else 1e-3
    student, train = student_of(split, loss_type=loss_type, num_negatives=3, reg_weight=reg_weight)
    before = student.item_embedding.weight.detach().clone()
    DistillationTrainer(Distiller(student), arguments(tmp_path, num_train_epochs=1), train).train()
    assert not torch.equal(student.item_embedding.weight, before)


def test_training_brings_no_histories():
    student, train = student_of(tiny_split())
    batch = student.collator(training=True)(student.training_rows(train).__getitems__([0, 5, 9]))
    assert batch["histories"].shape == (3, 0) and batch["negatives"].shape == (3, 1)


def test_new_items_leave_the_old_as_they_were():
    model = tiny()
    with torch.no_grad():
        users, items = model(torch.arange(1, 5)).query_embeddings.clone(), model.item_embeddings().clone()
        row = torch.tensor([[30.0, 0.0, 0.0]])
        model.add_items(["g"], row)
        assert torch.equal(model(torch.arange(1, 5)).query_embeddings, users)
        assert torch.equal(model.item_embeddings()[:7], items)
        torch.testing.assert_close(model.item_embeddings()[7:], row.double() / 3)  # layer 0 of three
    assert len(model.recommend([["a"]], k=7, users=["ann"]).item_ids[0]) == 6


# ---- what is refused ----------------------------------------------------------------------------------------------


def test_a_model_without_a_graph_says_so():
    for config in (LightGCNConfig(num_users=4, num_items=6), LightGCNConfig(num_users=4, num_items=6, num_edges=3)):
        with pytest.raises(ConfigError, match="no graph yet"):
            LightGCNModel(config).item_embeddings()


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (torch.tensor([[1], [7]]), r"items 7\.\.7, but this model has 1\.\.6"),
        (torch.tensor([[0], [1]]), r"users 0\.\.0"),
        (torch.tensor([1, 2]), r"\(2, E\)"),
        (torch.zeros(2, 0, dtype=torch.long), "at least 1"),
        (torch.tensor([[1.0], [1.0]]), "integers"),
    ],
)
def test_wrong_edges_are_refused(edges, message):
    with pytest.raises(DataError, match=message):
        tiny().set_edges(edges)


def test_repeated_edges_count_once():
    model = tiny()
    model.set_edges(EDGES[:, [5, 0, 1, 1, 2, 3, 4, 0]])
    assert torch.equal(model.edges, EDGES.int()) and model.config.num_edges == 6


def test_weights_follow_their_edges_and_the_largest_counts_of_repeats():
    model = tiny()
    order = [5, 0, 1, 1, 2, 3, 4, 0]
    model.set_edges(EDGES[:, order], torch.tensor([6.0, 1, 2, 0.5, 3, 4, 5, 0.1]))
    assert model.edge_weights.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("weights", [[1.0] * 5, [1.0, 1, 1, 1, 1, 0], [1.0, 1, 1, 1, 1, float("nan")]])
def test_wrong_weights_are_refused(weights):
    with pytest.raises(DataError, match="above 0"):
        tiny().set_edges(EDGES, torch.tensor(weights))


@pytest.mark.parametrize(
    "settings",
    [{"num_layers": 0}, {"edge_dropout": 1.0}, {"reg_weight": -1.0}, {"loss_type": "softmax"}, {"num_edges": -1}],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises((ConfigError, StrictDataclassClassValidationError), match=next(iter(settings))):
        LightGCNConfig(**settings)


def test_golden_of_a_stream_s_block(golden):
    """CCD's: two layers, no self loops, and the item that nobody in the block has is a third of itself."""
    case = json.loads((golden / "ccd_misc.json").read_text())["lightgcn"]
    model = LightGCNModel(LightGCNConfig(num_users=3, num_items=4, hidden_size=2, num_layers=2, reg_weight=0.0))
    model.set_edges(torch.tensor(case["R"]).nonzero().T + 1)
    with torch.no_grad():
        model.user_embedding.weight[1:] = torch.tensor(case["ego_user"])
        model.item_embedding.weight[1:] = torch.tensor(case["ego_item"])
    model.eval()
    users, batch = torch.tensor([1, 2, 3]), {name: torch.tensor(ids) + 1 for name, ids in case["batch"].items()}
    torch.testing.assert_close(model(users).query_embeddings, torch.tensor(case["out_user"]), rtol=0, atol=1e-6)
    torch.testing.assert_close(model.item_embeddings()[1:], torch.tensor(case["out_item"]), rtol=0, atol=1e-6)
    output = model(batch["user"])
    losses = model.training_loss(output, batch["pos_item"], negatives=batch["neg_item"][:, None])
    assert losses.sum().item() == pytest.approx(case["bpr_sum_loss"], rel=1e-6)

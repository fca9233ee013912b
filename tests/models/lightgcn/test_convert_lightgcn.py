"""LightGCN: golden vectors of RecBole and of gusye1234."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seqkd.errors import CheckpointError, DataError
from seqkd.functional import losses
from seqkd.models.lightgcn import LightGCNConfig, LightGCNModel
from seqkd.models.lightgcn.convert_lightgcn import from_gusye, from_recbole
from seqkd.models.lightgcn.propagation import mean_of_layers

GOLDEN = Path(os.environ.get("SEQKD_GOLDEN", Path(__file__).parents[2] / "golden"))


def load(name):
    case = json.loads((GOLDEN / f"{name}.json").read_text())
    expected = {key: torch.tensor(value) for key, value in case["expected"].items()}
    return case, load_file(GOLDEN / case["weights_file"]), expected, case["env"]["suggested_tolerance"]


def build(settings, tensors, **more):
    model = LightGCNModel(LightGCNConfig(**settings, **more))
    model.load_state_dict(tensors)
    return model


def recbole(**more):
    case, weights, expected, tolerance = load("lightgcn_recbole_tiny")
    inputs = case["inputs"]
    edges = torch.tensor([inputs["edges_user"], inputs["edges_item"]])
    settings, tensors = from_recbole(weights, edges, num_layers=case["config"]["n_layers"])
    assert (settings["num_users"], settings["num_items"]) == (inputs["n_users"] - 1, inputs["n_items"] - 1)
    model = build(settings, tensors, reg_weight=case["config"]["reg_weight"], **more)
    batch = {name: torch.tensor(value) for name, value in inputs["batch"].items()}
    return model, batch, expected, tolerance


def test_golden_recbole_matrix():
    model, _, expected, tolerance = recbole()
    users, items = len(model.user_embedding.weight), len(model.item_embedding.weight)
    by_user, by_item = torch.eye(users + items).split([users, items])
    half = torch.cat(mean_of_layers(by_user, by_item, model._graph(), 1))  # (identity + A_hat) / 2
    torch.testing.assert_close(2 * half - torch.eye(users + items), expected["norm_adj_dense"], **tolerance)


def test_golden_recbole_embeddings_and_scores():
    model, batch, expected, tolerance = recbole()
    assert model.config.num_layers == int(expected["n_layers"])
    model.eval()
    everybody = model(torch.arange(1, 5)).query_embeddings
    torch.testing.assert_close(everybody, expected["user_all"][1:], **tolerance)
    torch.testing.assert_close(model.item_embeddings()[1:], expected["item_all"][1:], **tolerance)
    scores = model.score(model(batch["user_id"]).query_embeddings)
    torch.testing.assert_close(scores[:, 1:], expected["full_sort_scores"][:, 1:], **tolerance)
    assert model.item_counts.tolist() == [0, 2, 2, 1, 1, 1, 0]


def test_golden_recbole_losses():
    model, batch, expected, tolerance = recbole()
    users, items, negatives = batch["user_id"], batch["item_id"], batch["neg_item_id"]
    output = model(users)
    loss = model.training_loss(output, items, negatives=negatives[:, None]).mean()
    torch.testing.assert_close(loss, expected["loss(require_pow=True)"][0], **tolerance)
    bpr = model.loss(output.query_embeddings, items, negatives[:, None]).mean()
    rows = (model.user_embedding(users), model.item_embedding(items), model.item_embedding(negatives))
    not_squared = sum(each.norm() for each in rows) / len(users)  # RecBole's default, which we do not offer
    loss = bpr + model.config.reg_weight * not_squared
    torch.testing.assert_close(loss, expected["loss(require_pow=False)"][0], **tolerance)


def test_golden_gusye():
    case, weights, expected, tolerance = load("lightgcn_gusye_tiny")
    inputs = {name: torch.tensor(value) for name, value in case["inputs"].items()}
    settings, tensors = from_gusye(weights, torch.stack([inputs["edges_user"], inputs["edges_item"]]))
    model = build(settings, tensors, reg_weight=1e-4)
    users, positives, negatives = (inputs[name] + 1 for name in ("users", "pos", "neg"))
    output = model(users)
    bpr = model.loss(output.query_embeddings, positives, negatives[:, None]).mean()
    torch.testing.assert_close(bpr, expected["bpr_loss"], **tolerance)
    loss = model.training_loss(output, positives, negatives=negatives[:, None]).mean()
    torch.testing.assert_close((loss - bpr) / 1e-4, expected["reg_loss"], atol=1e-3, rtol=0)  # of a difference
    logits = model.score(output.query_embeddings, torch.stack([positives, negatives], dim=1))
    torch.testing.assert_close(losses.bpr(logits[:, 0], logits[:, 1:]).mean(), expected["bpr_loss"], **tolerance)

    model.eval()
    torch.testing.assert_close(model(torch.arange(1, 5)).query_embeddings, expected["user_all"], **tolerance)
    torch.testing.assert_close(model.item_embeddings()[1:], expected["item_all"], **tolerance)
    scores = model.score(model(users).query_embeddings)[:, 1:]
    torch.testing.assert_close(scores.sigmoid(), expected["rating(sigmoid)"], **tolerance)


def test_golden_gusye_regularisation():
    """As above, but not a difference of two losses."""
    case, weights, expected, tolerance = load("lightgcn_gusye_tiny")
    inputs = {name: torch.tensor(value) for name, value in case["inputs"].items()}
    settings, tensors = from_gusye(weights, torch.stack([inputs["edges_user"], inputs["edges_item"]]))
    model, plain = (build(settings, tensors, reg_weight=weight).double() for weight in (1.0, 0.0))
    users, positives, negatives = (inputs[name] + 1 for name in ("users", "pos", "neg"))
    with_it, without = (
        each.training_loss(each(users), positives, negatives=negatives[:, None]).mean() for each in (model, plain)
    )
    torch.testing.assert_close((with_it - without).float(), expected["reg_loss"], **tolerance)


def test_other_checkpoints_are_refused():
    edges = torch.tensor([[1], [1]])
    tables = {"user_embedding.weight": torch.zeros(3, 2), "item_embedding.weight": torch.zeros(4, 2)}
    with pytest.raises(CheckpointError, match=r"RecBole.*bias"):
        from_recbole({**tables, "bias": torch.zeros(1)}, edges)
    with pytest.raises(CheckpointError, match=r"gusye1234.*item_embedding"):
        from_gusye(tables, edges)
    with pytest.raises(DataError, match=r"items 4\.\.4, but this model has 1\.\.3"):
        from_recbole(tables, torch.tensor([[1], [4]]))

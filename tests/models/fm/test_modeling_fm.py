"""FM: golden vectors of RecBole, and that one dot product is Rendle's formula."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seqkd.errors import CheckpointError
from seqkd.functional import losses
from seqkd.models.fm import FMConfig, FMModel
from seqkd.models.fm.convert_fm import from_recbole

GOLDEN = Path(os.environ.get("SEQKD_GOLDEN", Path(__file__).parents[2] / "golden"))
CASE = json.loads((GOLDEN / "fm_recbole_tiny.json").read_text())
TOLERANCE = CASE["env"]["suggested_tolerance"]


def weights():
    return load_file(GOLDEN / CASE["weights_file"])


def tiny(scale=1.0, **settings):
    """Weights far from their small initial values, so that every part matters; in float64."""
    torch.manual_seed(0)
    model = FMModel(FMConfig(**{"num_users": 5, "num_items": 9, "hidden_size": 4, **settings})).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_().mul_(scale)
            if parameter.dim() == 2:
                parameter[0] = 0
    return model


def queries():
    return {
        "user_ids": torch.tensor([1, 0, 5, 2]),
        "histories": torch.tensor([[3, 4, 9], [2, 2, 0], [0, 0, 0], [7, 0, 0]]),
    }


def test_golden_recbole():
    settings, tensors = from_recbole(weights())
    dims = CASE["config"]["field_dims"]
    assert (settings["num_users"] + 1, settings["num_items"] + 1) == (dims["user_id"], dims["item_id"])
    model = FMModel(FMConfig(**settings)).eval()
    model.load_state_dict(tensors)
    inputs = {name: torch.tensor(values) for name, values in CASE["inputs"].items()}
    expected = {name: torch.tensor(values) for name, values in CASE["expected"].items()}

    users, histories, items = inputs["user_id"], inputs["item_id_list"], inputs["item_id"]
    query, item = model.fields.query_side(users, histories), model.fields.item_side(items)
    vectors = torch.cat([query.vectors, item.vectors], dim=1)
    torch.testing.assert_close(vectors, expected["field_embeddings [B,3,4]"], **TOLERANCE)
    torch.testing.assert_close((query.weights + item.weights)[:, None], expected["first_order [B,1]"], **TOLERANCE)
    embedded = model(user_ids=users, histories=histories).query_embeddings
    logits = model.score(embedded, items[:, None]).squeeze(1)
    torch.testing.assert_close(logits, expected["logits"], **TOLERANCE)
    torch.testing.assert_close(model.score(embedded)[range(4), items], expected["logits"], **TOLERANCE)
    torch.testing.assert_close(logits.sigmoid(), expected["probabilities"], **TOLERANCE)
    positive = inputs["label"] == 1
    loss = torch.nn.functional.softplus(torch.where(positive, -logits, logits)).mean()
    torch.testing.assert_close(loss, expected["bce_loss"], **TOLERANCE)
    by_pairs = losses.bce(logits[positive], logits[~positive][:, None]).mean() / 2
    torch.testing.assert_close(by_pairs, expected["bce_loss"], **TOLERANCE)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"token_seq_embedding_table.0.weight": None}, "token_seq_embedding_table.0.weight"),
        ({"first_order_linear.bias": None}, "first_order_linear.bias"),
        ({"mlp_layers.mlp_layers.1.weight": torch.zeros(2, 2)}, "also holds.*mlp_layers"),
        ({"token_embedding_table.embedding.weight": torch.zeros(10, 4)}, r"one history of items.*\(10, 4\)"),
        ({"token_seq_embedding_table.0.weight": torch.zeros(9, 3)}, r"\(9, 3\)"),
        ({"first_order_linear.token_seq_embedding_table.0.weight": torch.zeros(8, 1)}, r"\(8, 1\)"),
    ],
)
def test_foreign_tensors_are_refused(change, problem):
    tensors = {name: tensor for name, tensor in {**weights(), **change}.items() if tensor is not None}
    with pytest.raises(CheckpointError, match=problem):
        from_recbole(tensors)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_dot_product_is_rendles_formula(share, temperature):
    """y = bias + sum_f w_f + 1/2 sum_d [(sum_f v_f)^2 - sum_f v_f^2], for every query and item."""
    attributes = torch.tensor([[1, 3], [2, 0], [0, 0], [1, 4], [2, 4], [2, 3], [0, 4], [1, 0], [1, 3]])
    settings = {"num_attributes": 4, "num_attribute_fields": 2, "share_item_table": share, "temperature": temperature}
    model, asked = tiny(**settings), queries()
    model.set_item_attributes(attributes)
    tables = model.fields
    history_table = tables.item.weight if share else tables.history.weight
    scores = model.score(model(**asked).query_embeddings)
    for q in range(4):
        history = [t for t in asked["histories"][q].tolist() if t]
        for j in range(1, 10):
            read = torch.stack([history_table[t] for t in history]).mean(0) if history else torch.zeros(4).double()
            told = attributes[j - 1]
            vectors = torch.stack(
                [read, tables.user.weight[asked["user_ids"][q]], tables.item.weight[j], *tables.attribute.weight[told]]
            )
            first = tables.bias + tables.user_weight.weight[asked["user_ids"][q]] + tables.item_weight.weight[j]
            first = first + tables.attribute_weight.weight[told].sum()
            first = first + sum(tables.history_weight.weight[t] for t in history)
            y = first + 0.5 * (vectors.sum(0) ** 2 - (vectors**2).sum(0)).sum()
            torch.testing.assert_close(scores[q, j], y[0] / temperature, rtol=1e-7, atol=1e-7)
    assert (scores[:, 0] == torch.finfo(scores.dtype).min).all()


def test_candidates_are_columns_of_the_catalogue():
    model = tiny()
    embedded = model(**queries()).query_embeddings
    assert embedded.shape == (4, model.embedding_size) == (4, 6)
    assert model.item_embeddings().shape == (10, 6)
    whole, shared = model.score(embedded), torch.tensor([4, 9, 1])
    torch.testing.assert_close(model.score(embedded, shared), whole[:, shared])
    own = torch.tensor([[1, 2], [3, 4], [5, 6], [9, 9]])
    torch.testing.assert_close(model.score(embedded, own), whole.gather(1, own))
    log_probs = model.catalogue_log_probs(embedded, own)
    torch.testing.assert_close(log_probs, whole[:, 1:].log_softmax(1).gather(1, own - 1))


def test_padding_of_a_history_changes_nothing():
    model, asked = tiny(), queries()
    longer = torch.cat([torch.zeros(4, 2, dtype=torch.long), asked["histories"]], dim=1)
    torch.testing.assert_close(
        model(**asked).query_embeddings, model(asked["user_ids"], longer).query_embeddings, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("loss_type", ["bce", "bpr", "softmax"])
def test_large_scores_stay_finite(loss_type):
    model = tiny(scale=25.0, loss_type=loss_type).float()
    embedded = model(**queries()).query_embeddings
    assert model.score(embedded)[:, 1:].abs().max() > 1e3
    loss = model.loss(embedded, torch.tensor([1, 5, 9, 2]), torch.tensor([[3], [8], [1], [7]]))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_gradient_reaches_every_table_and_no_padding():
    model = tiny(num_attributes=2, num_attribute_fields=1, share_item_table=False)
    model.set_item_attributes(torch.tensor([[1], [2], [0]] * 3))
    model.loss(
        model(**queries()).query_embeddings, torch.tensor([1, 5, 9, 2]), torch.tensor([[3], [8], [1], [7]])
    ).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.any(), name
        assert parameter.dim() == 1 or not parameter.grad[0].any(), name
    assert not model.fields.user.weight.grad[[3, 4]].any()  # users that were not asked for

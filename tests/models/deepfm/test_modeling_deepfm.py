"""DeepFM: golden vectors of RecBole, and that the split MLP is the whole one, in blocks too."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import tiny_split

from seqkd.distiller import Distiller
from seqkd.errors import CheckpointError, ConfigError, KnowledgeError
from seqkd.knowledge.export import export
from seqkd.models.deepfm import DeepFMConfig, DeepFMModel
from seqkd.models.deepfm.convert_deepfm import from_recbole
from seqkd.recommenders import wide_and_deep

GOLDEN = Path(os.environ.get("SEQKD_GOLDEN", Path(__file__).parents[2] / "golden"))
CASE = json.loads((GOLDEN / "deepfm_recbole_tiny.json").read_text())
TOLERANCE = CASE["env"]["suggested_tolerance"]


def weights():
    return load_file(GOLDEN / CASE["weights_file"])


def tiny(scale=0.7, **settings):
    """Weights far from their small initial values, so that every part matters; in float64."""
    torch.manual_seed(0)
    defaults = {"num_users": 5, "num_items": 9, "hidden_size": 4, "mlp_hidden_sizes": (6, 5), "dropout_prob": 0.0}
    model = DeepFMModel(DeepFMConfig(**{**defaults, **settings})).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_().mul_(scale)
            if name.startswith("fields.") and parameter.dim() == 2:
                parameter[0] = 0
    return model


def queries():
    return {
        "user_ids": torch.tensor([1, 0, 5, 2]),
        "histories": torch.tensor([[3, 4, 9], [2, 2, 0], [0, 0, 0], [7, 0, 0]]),
    }


def test_golden_recbole():
    settings, tensors = from_recbole(weights())
    assert settings["mlp_hidden_sizes"] == CASE["config"]["mlp_hidden_size"]
    model = DeepFMModel(DeepFMConfig(**settings)).eval()
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
    torch.testing.assert_close(model.score(embedded, items).diagonal(), expected["logits"], **TOLERANCE)
    torch.testing.assert_close(logits.sigmoid(), expected["probabilities"], **TOLERANCE)
    loss = torch.nn.functional.softplus(torch.where(inputs["label"] == 1, -logits, logits)).mean()
    torch.testing.assert_close(loss, expected["bce_loss"], **TOLERANCE)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"mlp_layers.mlp_layers.1.weight": None}, "mlp_layers.1.weight"),
        ({"deep_predict_layer.bias": None}, "deep_predict_layer.bias"),
        ({"mlp_layers.mlp_layers.1.weight": torch.zeros(8, 16)}, "reads 4 fields of width 4"),
        ({"mlp_layers.mlp_layers.10.weight": torch.zeros(2, 2)}, "also holds"),
    ],
)
def test_foreign_tensors_are_refused(change, problem):
    tensors = {name: tensor for name, tensor in {**weights(), **change}.items() if tensor is not None}
    with pytest.raises(CheckpointError, match=problem):
        from_recbole(tensors)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_split_layer_is_the_whole_mlp(temperature):
    """y = y_FM + MLP([history, user, item, attributes]) for every query and item, one by one (eq. 1 to 4)."""
    model, asked = tiny(num_attributes=4, num_attribute_fields=2, temperature=temperature), queries()
    attributes = torch.tensor([[1, 3], [2, 0], [0, 0], [1, 4], [2, 4], [2, 3], [0, 4], [1, 0], [1, 3]])
    model.set_item_attributes(attributes)
    tables = model.fields
    scores = model.score(model(**asked).query_embeddings)
    for q in range(4):
        history = [t for t in asked["histories"][q].tolist() if t]
        read = torch.stack([tables.item.weight[t] for t in history]).mean(0) if history else torch.zeros(4).double()
        user = asked["user_ids"][q]
        for j in range(1, 10):
            told = attributes[j - 1]
            vectors = torch.stack(
                [read, tables.user.weight[user], tables.item.weight[j], *tables.attribute.weight[told]]
            )
            y = tables.bias + tables.user_weight.weight[user] + tables.item_weight.weight[j]
            y = y + tables.attribute_weight.weight[told].sum() + sum(tables.history_weight.weight[t] for t in history)
            y = y + 0.5 * (vectors.sum(0) ** 2 - (vectors**2).sum(0)).sum()
            hidden = vectors.flatten()
            for layer in model.layers:
                hidden = torch.relu(layer.weight @ hidden + layer.bias)
            y = y + model.output.weight[0] @ hidden + model.output.bias
            torch.testing.assert_close(scores[q, j], y[0] / temperature, rtol=1e-7, atol=1e-7)
    assert (scores[:, 0] == torch.finfo(scores.dtype).min).all()


def test_candidates_are_columns_of_the_catalogue():
    model = tiny()
    embedded = model(**queries()).query_embeddings
    assert embedded.shape == (4, model.embedding_size) == (4, 12)
    assert model.item_embeddings().shape == (10, 12)
    assert not model.scores_by_dot_product
    whole, shared = model.score(embedded), torch.tensor([4, 9, 1])
    torch.testing.assert_close(model.score(embedded, shared), whole[:, shared])
    own = torch.tensor([[1, 2], [3, 4], [5, 6], [9, 9]])
    torch.testing.assert_close(model.score(embedded, own), whole.gather(1, own))


@pytest.mark.parametrize("block", [6, 12, 60, 100])  # one pair, some of a row, a row and more
@pytest.mark.parametrize("candidates", [None, torch.tensor([4, 9, 1]), torch.tensor([[1, 2], [3, 4], [5, 6], [9, 9]])])
def test_blocks_change_nothing(monkeypatch, block, candidates):
    model = tiny()
    embedded = model(**queries()).query_embeddings

    def scored():
        model.zero_grad()
        scores = model.score(model(**queries()).query_embeddings, candidates)
        scores.clamp(min=-1e6).square().sum().backward()
        return scores.detach(), [parameter.grad.clone() for parameter in model.parameters()]

    scores, gradients = scored()
    monkeypatch.setattr(wide_and_deep, "BLOCK", block)
    monkeypatch.setattr(wide_and_deep, "KEEP", 0)
    made, mlp = [], model._mlp
    monkeypatch.setattr(model, "_mlp", lambda q, i: made.append(mlp(q, i)) or made[-1])
    with torch.no_grad():
        torch.testing.assert_close(model.score(embedded, candidates), scores)
    assert max(part.numel() for part in made) * 6 <= block
    again, recomputed = scored()
    torch.testing.assert_close(again, scores)
    for a, b in zip(recomputed, gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_a_block_drops_the_same_when_computed_again(monkeypatch):
    """Two hidden layers and one output: with masks that changed between forward and backward the gradients would."""
    model = tiny(dropout_prob=0.5).train()
    monkeypatch.setattr(wide_and_deep, "BLOCK", 30)
    monkeypatch.setattr(wide_and_deep, "KEEP", 0)
    found = []
    for checkpoint in (wide_and_deep.checkpoint, lambda block, *parts, **_: block(*parts)):
        monkeypatch.setattr(wide_and_deep, "checkpoint", checkpoint)
        model.zero_grad()
        torch.manual_seed(1)
        model.score(model(**queries()).query_embeddings, torch.arange(1, 10)).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_falls_on_the_mlp_alone():
    model = tiny(dropout_prob=0.5)
    ids, width = torch.tensor([[3, 3, 3, 3]]), model.widths[0]
    items, embedded = model.item_embeddings(ids), model(**queries()).query_embeddings
    model.train()
    dropped = model.item_embeddings(ids)
    assert torch.equal(dropped[..., :width], items[..., :width])
    assert len(dropped[0, :, width:].unique(dim=0)) > 1  # each row has a mask of its own
    again = model(**queries()).query_embeddings
    assert torch.equal(again[:, :width], embedded[:, :width])
    assert not torch.allclose(again[:, width:], embedded[:, width:])
    torch.manual_seed(0)
    mean = model.item_embeddings(torch.full((20_000,), 3)).mean(0)
    torch.testing.assert_close(mean, items[0, 0], atol=0.1, rtol=0)  # kept values are scaled


@pytest.mark.parametrize("loss_type", ["bce", "bpr", "sampled_softmax"])
def test_large_scores_stay_finite(loss_type):
    model = tiny(scale=12.0, loss_type=loss_type, num_negatives=8).float()
    embedded = model(**queries()).query_embeddings
    assert model.score(embedded)[:, 1:].abs().max() > 1e3
    negatives = torch.tensor([[3], [8], [1], [7]])
    loss = model.loss(embedded, torch.tensor([1, 5, 9, 2]), negatives)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_gradient_reaches_everything_and_no_padding():
    model = tiny(share_item_table=False, num_attributes=2, num_attribute_fields=1)
    model.set_item_attributes(torch.tensor([[1], [2], [0]] * 3))
    negatives = torch.tensor([[3], [8], [1], [7]])
    model.loss(model(**queries()).query_embeddings, torch.tensor([1, 5, 9, 2]), negatives).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.any(), name
        assert not name.startswith("fields.") or parameter.dim() == 1 or not parameter.grad[0].any(), name


def test_initial_layers_are_recboles():
    """Xavier-normal over all the fields that the first layer reads, whatever is split; biases 0."""
    torch.manual_seed(0)
    model = DeepFMModel(DeepFMConfig(num_users=50, num_items=70))
    for layer, (read, made) in zip(model.layers, [(192, 128), (128, 128), (128, 128)], strict=True):
        assert layer.weight.shape == (made, read)
        assert layer.weight.std().item() == pytest.approx((2 / (read + made)) ** 0.5, rel=0.03)
        assert not layer.bias.any()


# ---- what it refuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"loss_type": "softmax"}, 'loss_type="softmax".*"bce", "bpr" or "sampled_softmax".*candidates="in_batch"'),
        ({"mlp_hidden_sizes": ()}, "mlp_hidden_sizes"),
        ({"mlp_hidden_sizes": [8, 0]}, "mlp_hidden_sizes"),
        ({"dropout_prob": 1.0}, "dropout_prob"),
    ],
)
def test_bad_settings_are_refused(settings, problem):
    with pytest.raises(ConfigError, match=problem):
        DeepFMConfig(**settings)


def test_no_softmax_over_the_catalogue():
    model = tiny()
    with pytest.raises(ConfigError, match=r"bce.*in_batch"):
        model.catalogue_log_probs(model(**queries()).query_embeddings, torch.ones(4, 1, dtype=torch.long))
    model.config.loss_type = "softmax"  # behind the back of the configuration
    asked = {**queries(), "targets": torch.tensor([1, 2, 3, 4])}
    with pytest.raises(ConfigError, match=r"bce.*in_batch"):
        Distiller(model)(**asked)


def test_query_embeddings_are_no_knowledge():
    split = tiny_split()
    model = DeepFMModel(DeepFMConfig(num_users=len(split.users), num_items=len(split.catalogue)))
    with pytest.raises(KnowledgeError, match="does not score by a dot product"):
        export(model, split.train, split=split, part="train", tables=("query_embeddings",))
    assert export(model, split.train, split=split, part="train", k=5).table("query_topk").shape[1] == 5

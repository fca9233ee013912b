from __future__ import annotations

import json

import pytest
import torch

from seqkd.batches.collators import SequenceDataset
from seqkd.batches.positives import Positives
from seqkd.errors import ConfigError
from seqkd.method import Epoch
from seqkd.methods.phr import PHR, HyperNetwork, PHRConfig, regression

from ..tiny import nobody, rows_of
from .embedding_market import QUERIES, STUDENT, TEACHER, Tables, answer, knowledge, pairs
from .golden_experts import near, taught, tensor


def taught_by(teachers, **config) -> tuple[PHR, Tables]:
    torch.manual_seed(0)
    method, student = PHR(PHRConfig(**{"enrichment": False, "hidden_size": 4, **config})), Tables()
    method.prepare(student, teachers)
    return method, student


def epoch() -> Epoch:
    """Rows of two queries each, the training one and the tail: the user of queries 1 and 2 has items 3 and 4."""
    rows = rows_of([[1, 2], [3, 4], [4, 9, 4], [5, 1]], last_only=True)
    positives = Positives(SequenceDataset(rows, 9))
    return Epoch(0, 1, torch.Generator(), positives, nobody)


def test_golden(golden):
    cases = json.loads((golden / "phr_thirdparty.json").read_text())["cases"]
    for case in cases:
        inputs, expected = case["inputs"], case["expected"]
        users = tensor(inputs["user_emb_student"]).requires_grad_()
        items = tensor(inputs["item_emb_student"]).requires_grad_()
        layers = inputs["personalization_net"]
        network = HyperNetwork(users.shape[1], len(inputs["user_emb_teacher"][0]), len(layers[0]["bias"])).double()
        for layer, weights in zip((network.hidden, network.output), layers, strict=True):
            layer.load_state_dict({name: tensor(value) for name, value in weights.items()})
        of_users = taught(users, tensor(inputs["user_emb_teacher"]), inputs["batch_users"])
        sides = [
            taught(items, tensor(inputs["item_emb_teacher"]), inputs[f"batch_{side}_items"], 0.5)
            for side in ("pos", "neg")
        ]
        losses = [regression(side, side.teacher, network) for side in (of_users, *sides)]
        near(losses[0], expected["loss_users"])
        near(2 * losses[1], expected["loss_pos_items"])
        near(2 * losses[2], expected["loss_neg_items"])
        total = sum(losses)
        near(total, expected["total"])
        total.backward()
        near(users.grad, expected["grad_user_emb"])
        near(items.grad, expected["grad_item_emb"])
        for layer, gradient in zip((network.hidden, network.output), expected["grad_personalization_net"], strict=True):
            near(layer.weight.grad, gradient["weight"])
            near(layer.bias.grad, gradient["bias"])
    assert len(cases) >= 1


@pytest.mark.parametrize("bias", [False, True])
def test_network_equals_the_loop(bias):
    torch.manual_seed(0)
    network = HyperNetwork(3, 5, bias=bias).double()
    assert network.hidden.out_features == (5 + 15) // 2
    student, about = torch.randn(4, 3).double(), torch.randn(4, 5).double()
    rows = []
    for s, v in zip(student, about, strict=True):
        flat = network.output.weight @ torch.clamp(network.hidden.weight @ v + network.hidden.bias, min=0)
        theta = (flat + network.output.bias).reshape(5, -1)
        rows.append(theta[:, :3] @ s + (theta[:, 3] if bias else 0))
    torch.testing.assert_close(network(student, about), torch.stack(rows))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("enrichment", [False, True])
def test_equals_the_loop_over_distinct_entities(shared, enrichment):
    teachers = {"one": knowledge()}
    method, student = taught_by(teachers, shared=shared, enrichment=enrichment)
    method.on_epoch_begin(epoch())
    queries, items = (teachers["one"].table(f"{kind}_embeddings").float() for kind in ("query", "item"))
    histories = [{1, 2}, {3, 4}, {4, 9}, {5, 1}]
    query_networks = method.query_networks["one"]
    item_networks = query_networks if shared else method.item_networks["one"]
    total = 0.0
    for query in (1, 2, 4, 5, 7):
        near_by = [items[item] for item in histories[query // 2]]
        about = 0.5 * (queries[query] + sum(near_by) / len(near_by)) if enrichment else queries[query]
        made = query_networks(student.queries[query][None], about[None])[0]
        total += (queries[query] - made).square().sum().item()
    for item in (3, 6, 8, 1, 2, 6, 9):
        near_by = [queries[2 * user + 1] for user, history in enumerate(histories) if item in history]  # their tails
        about = 0.5 * (items[item] + sum(near_by) / len(near_by)) if enrichment and near_by else items[item]
        made = item_networks(student.items[item][None], about[None])[0]
        total += 0.5 * (items[item] - made).square().sum().item()
    assert answer(method, student, pairs(), teachers).item() == pytest.approx(total / 6, rel=1e-5)


def test_gradient_reaches_the_entities_of_the_batch_and_the_networks():
    teachers = {"one": knowledge()}
    method, student = taught_by(teachers, bias=True)
    answer(method, student, pairs(), teachers).backward()
    assert student.queries.grad.any(dim=1).nonzero().flatten().tolist() == [1, 2, 4, 5, 7]
    assert student.items.grad.any(dim=1).nonzero().flatten().tolist() == [1, 2, 3, 6, 8, 9]
    assert all(parameter.grad.any() for parameter in method.parameters())


def test_a_sample_is_unbiased():
    teachers = {"one": knowledge()}
    method, student = taught_by(teachers)
    full = answer(method, student, pairs(), teachers)
    sampled, _ = taught_by(teachers, max_entities=2)
    sampled.load_state_dict(method.state_dict())
    torch.manual_seed(1)
    draws = torch.stack([answer(sampled, student, pairs(), teachers).detach() for _ in range(2000)])
    assert abs(draws.mean() - full).item() < 4 * draws.std().item() / 2000**0.5


def test_finite_at_large_vectors():
    teachers = {"one": knowledge()}
    method, student = taught_by(teachers)
    with torch.no_grad():
        student.queries.mul_(1e3)
    loss = answer(method, student, pairs(), teachers)
    loss.backward()
    assert loss.isfinite() and student.queries.grad.isfinite().all()


def test_what_is_built():
    method, _ = taught_by({"one": knowledge(), "two": knowledge(2, width=4)}, hidden_size=None, shared=True)
    assert method.query_networks["two"].hidden.out_features == (4 + 4 * STUDENT) // 2
    assert method.query_networks["one"].output.out_features == TEACHER * STUDENT
    assert not any(name.startswith("item_networks") for name in method.state_dict())
    enriched, _ = taught_by({"one": knowledge()}, enrichment=True)
    before = set(enriched.state_dict())
    enriched.on_epoch_begin(epoch())
    assert set(enriched.state_dict()) == before  # means are taken anew on resume
    assert len(enriched._neighbourhoods["one"].query_user) == QUERIES


def test_enrichment_needs_a_trainer():
    teachers = {"one": knowledge()}
    method, student = taught_by(teachers, enrichment=True)
    with pytest.raises(ConfigError, match="on_epoch_begin"):
        answer(method, student, pairs(), teachers)
    with pytest.raises(ConfigError, match="hidden_size"):
        PHRConfig(hidden_size=0)

from __future__ import annotations

import json
from itertools import chain

import pytest
import torch

from seqkd.errors import ConfigError
from seqkd.method import Epoch
from seqkd.methods.de import DE, DEConfig, regression

from ..tiny import nobody
from .embedding_market import TEACHER, Tables, answer, knowledge, pairs
from .golden_experts import bank, near, taught, tensor


def taught_by(teachers, **config) -> tuple[DE, Tables]:
    torch.manual_seed(0)
    method, student = DE(DEConfig(num_experts=3, **config)), Tables()
    method.prepare(student, teachers)
    return method.eval(), student  # without noise


def test_golden(golden):
    cases = json.loads((golden / "de.json").read_text())["cases"]
    for case in cases:
        inputs, expected = case["inputs"], case["expected"]
        users = tensor(inputs["user_emb_student"]).requires_grad_()
        items = tensor(inputs["item_emb_student"]).requires_grad_()
        user_bank = bank(inputs["user_experts"], inputs["user_selection"], inputs["temperature"])
        item_bank = bank(inputs["item_experts"], inputs["item_selection"], inputs["temperature"])
        teacher_users, teacher_items = tensor(inputs["user_emb_teacher"]), tensor(inputs["item_emb_teacher"])
        of_users = regression(
            taught(users, teacher_users, inputs["batch_users"]), user_bank, tensor(inputs["gumbel_users"])
        )
        of_items = [
            regression(
                taught(items, teacher_items, inputs[f"batch_{side}_items"], 0.5),
                item_bank,
                tensor(inputs[f"gumbel_{side}_items"]),
            )
            for side in ("pos", "neg")
        ]
        near(of_users, expected["loss_users"])
        near(2 * of_items[0], expected["loss_pos_items"])
        near(2 * of_items[1], expected["loss_neg_items"])
        total = of_users + of_items[0] + of_items[1]
        near(total, expected["loss_total"])
        total.backward()
        near(users.grad, expected["grad_user_emb"])
        near(items.grad, expected["grad_item_emb"])
        for module, side in ((user_bank, "user"), (item_bank, "item")):
            near(module.selector.weight.grad, expected[f"grad_{side}_selection"]["weight"])
            near(module.selector.bias.grad, expected[f"grad_{side}_selection"]["bias"])
        for m, expert in enumerate(expected["grad_user_experts"]):
            near(user_bank.hidden_weight.grad[m].T, expert[0]["weight"])
            near(user_bank.hidden_bias.grad[m], expert[0]["bias"])
            near(user_bank.weight.grad[m].T, expert[1]["weight"])
            near(user_bank.bias.grad[m], expert[1]["bias"])
    assert len(cases) >= 1


@pytest.mark.parametrize("negatives", [True, False])
def test_equals_the_loop_over_distinct_entities(negatives):
    teachers = {"one": knowledge(1), "two": knowledge(2, width=4)}
    method, student = taught_by(teachers)
    batch = pairs(negatives)
    total = 0.0
    for name, said in teachers.items():
        for query in (1, 2, 4, 5, 7):
            t = said.table("query_embeddings")[query].float()
            total += method.query_experts[name].errors(student.queries[query][None], t[None]).item()
        sets = [(3, 6, 8), (1, 2, 6, 9)] if negatives else [(3, 6, 8)]
        for item in chain(*sets):
            t = said.table("item_embeddings")[item].float()
            total += method.item_experts[name].errors(student.items[item][None], t[None]).item() / len(sets)
    assert answer(method, student, batch, teachers).item() == pytest.approx(total / 2 / 6, rel=1e-5)


def test_gradient_reaches_the_entities_of_the_batch_and_the_experts():
    teachers = {"one": knowledge()}
    method, student = taught_by(teachers)
    answer(method.train(), student, pairs(), teachers).backward()
    assert student.queries.grad.any(dim=1).nonzero().flatten().tolist() == [1, 2, 4, 5, 7]
    assert student.items.grad.any(dim=1).nonzero().flatten().tolist() == [1, 2, 3, 6, 8, 9]
    assert all(parameter.grad.any() for parameter in method.parameters())


def test_what_the_teacher_does_not_know_is_not_taught():
    teachers = {"one": knowledge()}
    teachers["one"].table("item_embeddings")[8] = 0
    method, student = taught_by(teachers)
    answer(method, student, pairs(), teachers).backward()
    assert not student.items.grad[8].any() and student.items.grad[3].any()


@pytest.mark.parametrize("sample", [{"max_entities": 2}, {"every": 3}])
def test_a_sample_is_unbiased(sample):
    teachers = {"one": knowledge()}
    method, student = taught_by(teachers)
    full = answer(method, student, pairs(), teachers)
    sampled, _ = taught_by(teachers, **sample)
    sampled.load_state_dict(method.state_dict())
    torch.manual_seed(1)
    draws = torch.stack([answer(sampled, student, pairs(), teachers).detach() for _ in range(2000)])
    assert draws.std() > 0
    assert abs(draws.mean() - full).item() < 4 * draws.std().item() / 2000**0.5


def test_epochs_set_the_temperature():
    method, _ = taught_by({"one": knowledge()}, anneal_epochs=100)
    before = set(method.state_dict())
    method.on_epoch_begin(Epoch(11, 100, torch.Generator(), None, nobody))
    banks = [method.query_experts["one"], method.item_experts["one"]]
    assert [experts.temperature for experts in banks] == pytest.approx([0.1, 0.1])
    assert set(method.state_dict()) == before  # recomputed on resume, not saved


@pytest.mark.parametrize("temperature", [1.0, 1e-10])
def test_finite_at_large_vectors(temperature):
    teachers = {"one": knowledge()}
    method, student = taught_by(teachers)
    with torch.no_grad():
        student.queries.mul_(1e3), student.items.mul_(1e3)
    for experts in (method.query_experts["one"], method.item_experts["one"]):
        experts.temperature = temperature
    loss = answer(method.train(), student, pairs(), teachers)
    loss.backward()
    assert loss.isfinite() and student.queries.grad.isfinite().all()


def test_widths_come_from_student_and_teachers():
    method, _ = taught_by({"one": knowledge(), "two": knowledge(2, width=4, item_width=6)})
    assert method.query_experts["one"].bias.shape == (3, TEACHER)
    assert method.query_experts["two"].bias.shape == (3, 4) and method.item_experts["two"].bias.shape == (3, 6)
    assert method.requires == {"query_embeddings", "item_embeddings"}


def test_wrong_settings_are_refused():
    with pytest.raises(ConfigError, match="num_experts must be at least 1"):
        DEConfig(num_experts=0)
    with pytest.raises(ConfigError, match="cannot name a module"):
        taught_by({"mf.v1": knowledge()})

from __future__ import annotations

import json

import pytest
import torch
from torch.nn.functional import cosine_similarity

from seqkd.errors import ConfigError
from seqkd.method import Epoch
from seqkd.methods.de import regression
from seqkd.methods.htd import HTD, HTDConfig, entity_term, group_term

from ..tiny import nobody
from .embedding_market import Tables, answer, knowledge, pairs
from .golden_experts import bank, near, taught, tensor


def gradients(loss, *inputs):
    return torch.autograd.grad(loss, inputs, retain_graph=True)


def test_golden(golden):
    cases = json.loads((golden / "htd.json").read_text())["cases"]
    for case in cases:
        inputs, expected = case["inputs"], case["expected"]
        users = tensor(inputs["user_emb_student"]).requires_grad_()
        items = tensor(inputs["item_emb_student"]).requires_grad_()
        banks = [bank(inputs[f"{s}_experts"], inputs[f"{s}_assign"], inputs["temperature"]) for s in ("user", "item")]
        sides = [
            taught(users, tensor(inputs["user_emb_teacher"]), inputs["batch_users"]),
            taught(items, tensor(inputs["item_emb_teacher"]), inputs["batch_items"]),
        ]
        groups = torch.cat([banks[0].group(sides[0].teacher), banks[1].group(sides[1].teacher) + 3])
        assert groups.tolist() == expected["group_ids"]
        student, teacher = (torch.cat([side[part] for side in sides]) for part in (1, 2))
        kept = (groups[:, None] == groups) & (torch.nn.functional.normalize(teacher) @ teacher.T > 0)
        dropped = int((groups[:, None] == groups).sum() - kept.sum())
        assert dropped == expected["within_group_pairs_dropped_because_teacher_cosine_le_0"]

        ga_users = regression(sides[0], banks[0], tensor(inputs["gumbel_users"]))
        ga_items = regression(sides[1], banks[1], tensor(inputs["gumbel_items"]))
        near(ga_users, expected["GA_loss_users"])
        near(ga_items, expected["GA_loss_items"])
        entity = entity_term(student, teacher, groups)
        near(entity, expected["entity_level_term"])
        apart = [entity_term(s.student, s.teacher, b.group(s.teacher)) for s, b in zip(sides, banks, strict=True)]
        near(sum(apart), expected["entity_level_term"])  # as the method takes it, side by side
        first = entity + group_term(student, teacher, groups, "pp_constant")
        second = entity + group_term(student, teacher, groups, "pe")
        near(first - entity, expected["group_level_PP"])
        near(group_term(student, teacher, groups, "pp"), expected["group_level_PP"])
        near(second - entity, expected["group_level_Pe"])
        near(first, expected["TD_loss_first_PP"])
        near(second, expected["TD_loss_second_Pe"])
        total = 0.5 * second + 0.5 * (ga_users + ga_items)
        near(total, expected["HTD_total_gamma0.5_second"])
        for loss, name in ((ga_users + ga_items, "GA"), (first, "TD_first"), (second, "TD_second"), (total, "total")):
            user_gradient, item_gradient = gradients(loss, users, items)
            near(user_gradient, expected[f"grad_user_emb_{name}"])
            near(item_gradient, expected[f"grad_item_emb_{name}"])
    assert len(cases) >= 1


def loop(student, teacher, groups, how):
    """Both topology terms, over pairs as the paper writes them."""
    entity = group = 0.0
    everyone = range(len(groups))
    for i in everyone:
        for j in everyone:
            wanted = cosine_similarity(teacher[i], teacher[j], dim=0)
            if groups[i] == groups[j] and wanted > 0:
                entity += (cosine_similarity(student[i], student[j], dim=0) - wanted) ** 2
    for g in sorted(set(groups)):
        members = [e for e in everyone if groups[e] == g]
        s, t = student[members].mean(0), teacher[members].mean(0)
        others = (
            [[e] for e in everyone] if how == "pe" else [[e for e in everyone if groups[e] == h] for h in set(groups)]
        )
        for other in others:
            gap = cosine_similarity(s, student[other].mean(0), dim=0) - cosine_similarity(
                t, teacher[other].mean(0), dim=0
            )
            group += gap**2
    return entity, group


def taught_by(teachers, **config):
    torch.manual_seed(0)
    method, student = HTD(HTDConfig(num_groups=3, **config)).double(), Tables().double()
    method.prepare(student, teachers)
    return method.double().eval(), student


@pytest.mark.parametrize("how", ["pe", "pp"])
def test_equals_the_loop(how):
    teachers = {"one": knowledge()}
    method, student = taught_by(teachers, group_term=how, gamma=0.3)
    said, queries, items = teachers["one"], [1, 2, 4, 5, 7], [1, 2, 3, 6, 8, 9]
    t = [said.table("query_embeddings")[queries].double(), said.table("item_embeddings")[items].double()]
    s = [student.queries[queries], student.items[items]]
    banks = [method.query_experts["one"], method.item_experts["one"]]
    groups = banks[0].group(t[0]).tolist() + [3 + g for g in banks[1].group(t[1]).tolist()]
    entity, group = loop(torch.cat(s), torch.cat(t), groups, how)
    assignment = sum(experts.errors(a, b).sum() for experts, a, b in zip(banks, s, t, strict=True))
    expected = (0.3 * (entity + group) + 0.7 * assignment) / 6
    torch.testing.assert_close(answer(method, student, pairs(), teachers), expected)


def test_prototypes_pass_the_gradient_on_only_where_the_paper_has_it():
    torch.manual_seed(0)
    student = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    teacher, groups = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 0, 1, 1, 2, 2])
    (gradient,) = torch.autograd.grad(group_term(student, teacher, groups, "pp"), student)
    assert gradient.any(dim=1).all()
    assert not group_term(student, teacher, groups, "pp_constant").requires_grad
    # pe: entity 0 is taught as if the prototypes were constants
    (gradient,) = torch.autograd.grad(group_term(student, teacher, groups, "pe"), student)
    moved = student.detach().clone().requires_grad_()
    means = torch.stack([student.detach()[groups == g].mean(0) for g in range(3)])
    wanted = torch.stack([teacher[groups == g].mean(0) for g in range(3)])
    gap = cosine_similarity(means[:, None], moved[None], dim=2) - cosine_similarity(
        wanted[:, None], teacher[None], dim=2
    )
    torch.testing.assert_close(gradient, torch.autograd.grad(gap.square().sum(), moved)[0])


def test_gradient_reaches_the_entities_of_the_batch_and_the_experts():
    teachers = {"one": knowledge()}
    method, student = taught_by(teachers)
    answer(method, student, pairs(), teachers).backward()
    assert student.queries.grad.any(dim=1).nonzero().flatten().tolist() == [1, 2, 4, 5, 7]
    assert student.items.grad.any(dim=1).nonzero().flatten().tolist() == [1, 2, 3, 6, 8, 9]
    assert all(parameter.grad.any() for parameter in method.parameters())


def test_a_sample_is_unbiased():
    teachers = {"one": knowledge()}
    method, student = taught_by(teachers)
    full = answer(method, student, pairs(), teachers)
    sampled, _ = taught_by(teachers, max_entities=3)
    sampled.load_state_dict(method.state_dict())
    torch.manual_seed(1)
    draws = torch.stack([answer(sampled, student, pairs(), teachers).detach() for _ in range(1500)])
    assert draws.std() > 0
    assert abs(draws.mean() - full).item() < 4 * draws.std().item() / 1500**0.5


@pytest.mark.parametrize("how", ["pe", "pp", "pp_constant"])
def test_zero_rows_and_large_vectors_are_finite(how):
    teachers = {"one": knowledge()}
    method, student = taught_by(teachers, group_term=how)
    with torch.no_grad():
        student.queries.mul_(1e3)
        student.items[3] = 0
    teachers["one"].table("item_embeddings")[6] = 0
    loss = answer(method, student, pairs(), teachers)
    loss.backward()
    assert loss.isfinite() and student.queries.grad.isfinite().all() and student.items.grad.isfinite().all()
    assert not student.items.grad[6].any()


def test_nothing_but_queries():
    """A batch of tails only: no item at all."""
    teachers = {"one": knowledge()}
    method, student = taught_by(teachers)
    batch = {**pairs(negatives=False), "targets": torch.full((6,), -100)}
    loss = answer(method, student, batch, teachers)
    loss.backward()
    assert loss.isfinite() and student.queries.grad.any()


def test_epochs_set_the_temperature():
    method, _ = taught_by({"one": knowledge()})
    method.on_epoch_begin(Epoch(11, 100, torch.Generator(), None, nobody))
    assert method.item_experts["one"].temperature == pytest.approx(0.1)  # over 100 epochs by default


@pytest.mark.parametrize(
    ("wrong", "said"), [({"group_term": "ee"}, "one of"), ({"gamma": 2}, "gamma"), ({"max_entities": 1}, "at least 2")]
)
def test_wrong_settings_are_refused(wrong, said):
    with pytest.raises(ConfigError, match=said):
        HTDConfig(**wrong)

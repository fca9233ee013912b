from __future__ import annotations

import json

import pytest
import torch

from seqkd.errors import ConfigError
from seqkd.methods.ftd import FTD, topology_gap

from .embedding_market import Tables, answer, knowledge, pairs
from .golden_experts import near, tensor


def loop(student: torch.Tensor, teacher: torch.Tensor) -> float:
    """Over ordered pairs, as the paper writes it."""
    cosine = torch.nn.functional.cosine_similarity
    total = 0.0
    for i in range(len(student)):
        for j in range(len(student)):
            gap = cosine(teacher[i], teacher[j], dim=0) - cosine(student[i], student[j], dim=0)
            total += gap.item() ** 2
    return total


def test_golden(golden):
    cases = json.loads((golden / "ftd.json").read_text())["cases"]
    for case in cases:
        inputs, expected = case["inputs"], case["expected"]
        users = tensor(inputs["user_emb_student"]).requires_grad_()
        items = tensor(inputs["item_emb_student"]).requires_grad_()
        rows = torch.tensor(inputs["batch_users"]), torch.tensor(inputs["batch_items"])
        teacher = torch.cat([tensor(inputs["user_emb_teacher"])[rows[0]], tensor(inputs["item_emb_teacher"])[rows[1]]])
        loss = topology_gap(torch.cat([users[rows[0]], items[rows[1]]]), teacher)
        near(loss, expected["loss"])
        loss.backward()
        near(users.grad, expected["grad_user_emb"])
        near(items.grad, expected["grad_item_emb"])
    assert len(cases) >= 1


@pytest.mark.parametrize(("negatives", "items"), [(True, [1, 2, 3, 6, 8, 9]), (False, [3, 6, 8])])
def test_equals_the_loop_over_distinct_entities(negatives, items):
    torch.manual_seed(0)
    student, said = Tables().double(), knowledge()
    queries = [1, 2, 4, 5, 7]
    own = torch.cat([student.queries[queries], student.items[items]])
    other = torch.cat([said.table("query_embeddings")[queries], said.table("item_embeddings")[items]]).double()
    found = answer(FTD(), student, pairs(negatives), {"one": said})
    assert found.item() == pytest.approx(loop(own, other) / len(own) ** 2)


def test_zero_rows_give_no_nan_and_no_gradient():
    student, said = Tables(), knowledge()
    with torch.no_grad():
        student.items[3] = 0
    said.table("item_embeddings")[6] = 0  # the teacher says nothing: it is left out
    loss = answer(FTD(), student, pairs(), {"one": said})
    loss.backward()
    assert loss.isfinite() and student.items.grad.isfinite().all()
    assert not student.items.grad[3].any() and not student.items.grad[6].any() and student.items.grad[8].any()


def test_gradient_reaches_the_entities_of_the_batch_only():
    student = Tables()
    answer(FTD(), student, pairs(), {"one": knowledge()}).backward()
    assert student.queries.grad.any(dim=1).nonzero().flatten().tolist() == [1, 2, 4, 5, 7]
    assert student.items.grad.any(dim=1).nonzero().flatten().tolist() == [1, 2, 3, 6, 8, 9]


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scale_does_not_matter(scale):
    torch.manual_seed(0)
    student, teacher = torch.randn(7, 3), torch.randn(7, 5)
    torch.testing.assert_close(topology_gap(student * scale, teacher), topology_gap(student, teacher / scale))


def test_teachers_count_alike():
    student = Tables()
    losses = [answer(FTD(), student, pairs(), {"t": knowledge(seed)}) for seed in (1, 2)]
    both = answer(FTD(), student, pairs(), {"one": knowledge(1), "two": knowledge(2)})
    torch.testing.assert_close(both, sum(losses) / 2)


def test_queries_and_items_must_share_a_space():
    with pytest.raises(ConfigError, match="queries of width 5 and items of width 4"):
        FTD().prepare(Tables(), {"one": knowledge(item_width=4)})

"""The bank of experts against a loop over entities and experts, in both of its forms."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from seqkd.modules import experts as module
from seqkd.modules.experts import Experts, annealed


def bank(student_size: int = 3, teacher_size: int = 5, num_experts: int = 4) -> Experts:
    torch.manual_seed(0)
    return Experts(student_size, teacher_size, num_experts).double()


def slow(experts: Experts, student: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    rows = []
    for s, z in zip(student, weights, strict=True):
        row = torch.zeros(experts.weight.shape[2], dtype=torch.float64)
        for m in range(len(z)):
            hidden = torch.clamp(s @ experts.hidden_weight[m] + experts.hidden_bias[m], min=0)
            row = row + z[m] * (hidden @ experts.weight[m] + experts.bias[m])
        rows.append(row)
    return torch.stack(rows)


def gradients(experts: Experts, made: torch.Tensor, *inputs: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(made.square().sum(), [*inputs, *experts.parameters()]))


@pytest.mark.parametrize("temperature", [1.0, 0.1, 1e-10])
def test_both_forms_equal_the_loop(temperature, monkeypatch):
    experts = bank()
    experts.temperature = temperature
    student = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    teacher, noise = torch.randn(6, 5, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    weights = torch.stack(
        [
            ((experts.selector(t).softmax(0).log() + g) / temperature).softmax(0)
            for t, g in zip(teacher, noise, strict=True)
        ]
    )
    torch.testing.assert_close(experts.choose(teacher, noise), weights)
    expected = slow(experts, student, weights)
    wanted = gradients(experts, expected, student)
    asked = (weights > module.NEGLIGIBLE).T
    for made in (experts(student, teacher, noise), experts._few(student, experts.choose(teacher, noise), asked)):
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)  # what is negligible is left out
        for found, want in zip(gradients(experts, made, student), wanted, strict=True):
            torch.testing.assert_close(found, want, rtol=1e-3, atol=1e-3)
    monkeypatch.setattr(module, "NEGLIGIBLE", -1.0)  # everybody is asked: then it is exact
    made = experts._few(student, experts.choose(teacher, noise), torch.ones_like(asked))
    torch.testing.assert_close(made, expected)


def test_few_are_asked_once_the_choice_is_sharp(monkeypatch):
    experts = bank(num_experts=8)
    calls = []
    few = Experts._few
    monkeypatch.setattr(Experts, "_few", lambda self, *args: calls.append(len(calls)) or few(self, *args))
    student, teacher = torch.randn(6, 3).double(), torch.randn(6, 5).double()
    experts(student, teacher)
    assert calls == []
    experts.temperature = 1e-3
    experts(student, teacher)
    assert calls == [0]


def test_widths_of_the_hidden_layer():
    assert bank(3, 6).hidden_weight.shape == (4, 3, 4)
    assert bank(6, 6).hidden_weight.shape == (4, 6, 3)


def test_one_expert_needs_no_selector():
    experts = bank(num_experts=1)
    assert torch.equal(experts.choose(torch.randn(3, 5).double()), torch.ones(3, 1).double())


def test_noise_is_gumbel_in_training_and_none_otherwise():
    experts = Experts(2, 3, 2)
    teacher = torch.randn(1, 3).expand(20000, 3)
    torch.testing.assert_close(experts.eval().choose(teacher), experts.selector(teacher).softmax(1))
    experts.train().temperature = 1e-6
    share = experts.choose(teacher)[:, 0].mean()  # the Gumbel-max trick: drawn as often as the softmax says
    torch.testing.assert_close(share, experts.selector(teacher[:1]).softmax(1)[0, 0], atol=0.02, rtol=0)


@pytest.mark.parametrize("scale", [1e3, 1e-30])
def test_finite_at_large_scores_and_the_last_temperature(scale):
    experts = Experts(3, 5, 4)
    experts.temperature = 1e-10
    student = (torch.randn(6, 3) * scale).requires_grad_()
    teacher = torch.randn(6, 5) * scale
    errors = experts.errors(student, teacher)
    assert errors.isfinite().all()
    assert all(
        gradient.isfinite().all() for gradient in torch.autograd.grad(errors.sum(), [student, *experts.parameters()])
    )


def test_groups_are_the_selectors_argmax_without_gradient():
    experts = bank()
    teacher = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    groups = experts.group(teacher)
    assert groups.tolist() == [
        int(F.linear(t, experts.selector.weight, experts.selector.bias).argmax()) for t in teacher
    ]


def test_golden_temperatures(golden):
    schedule = json.loads((golden / "de.json").read_text())["temperature_schedule"]
    for epoch, temperature in schedule["used_at_epoch"].items():
        assert annealed(int(epoch), schedule["max_epoch"], schedule["end"]) == pytest.approx(temperature, rel=1e-9)
    assert annealed(5000, 1000) == 1e-10

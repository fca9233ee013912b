"""Whitening and mixture of experts against a loop over items and experts."""

from __future__ import annotations

import pytest
import torch

from seqkd.modules.moe_adaptor import MoEAdaptor


@pytest.fixture
def adaptor() -> MoEAdaptor:
    torch.manual_seed(0)
    module = MoEAdaptor(5, 3, num_experts=4)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    return module.double()


def slow(module: MoEAdaptor, x: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
    rows = []
    for vector, gate in zip(x, gates, strict=True):
        row = torch.zeros(3, dtype=torch.float64)
        for expert in range(4):
            row += gate[expert] * (module.weight[expert].T @ (vector - module.shift[expert]))
        rows.append(row)
    return torch.stack(rows)


def test_evaluation_equals_a_loop(adaptor):
    x = torch.randn(6, 5, dtype=torch.float64)
    gates = torch.stack([torch.softmax(adaptor.gate.T @ vector, 0) for vector in x])
    torch.testing.assert_close(adaptor.eval()(x), slow(adaptor, x, gates))
    torch.testing.assert_close(adaptor(x.view(2, 3, 5)), slow(adaptor, x, gates).view(2, 3, 3))


def test_training_adds_the_noise_of_the_paper(adaptor, monkeypatch):
    adaptor.dropout.p = 0.0
    x = torch.randn(6, 5, dtype=torch.float64)
    noise = torch.randn(6, 4, dtype=torch.float64)
    monkeypatch.setattr(torch, "randn_like", lambda _: noise)
    scale = torch.log1p(torch.exp(x @ adaptor.noise)) + 0.01
    gates = torch.softmax(x @ adaptor.gate + noise * scale, dim=1)
    torch.testing.assert_close(adaptor.train()(x), slow(adaptor, x, gates))


def test_dropout_differs_between_experts_and_keeps_the_mean():
    torch.manual_seed(0)
    module = MoEAdaptor(8, 2, num_experts=2, dropout=0.5, noisy=False).train()
    with torch.no_grad():
        module.weight[1] = module.weight[0]
    x = torch.ones(4000, 8)
    outputs = module.experts(x)  # (N, E, D)
    assert not torch.equal(outputs[:, 0], outputs[:, 1])
    torch.testing.assert_close(outputs.mean(0), module.eval().experts(x[:1])[0], atol=3e-3, rtol=0)


def test_a_zero_vector_gives_the_mean_of_the_shifts(adaptor):
    expected = -torch.einsum("ep,epd->ed", adaptor.shift, adaptor.weight).mean(0)
    torch.testing.assert_close(adaptor.eval()(torch.zeros(5, dtype=torch.float64)), expected)


def test_fresh_gates_are_uniform_and_everything_gets_a_gradient():
    module = MoEAdaptor(5, 3, num_experts=4)
    x = torch.randn(7, 5)
    assert torch.equal(module.eval().gates(x), torch.full((7, 4), 0.25))
    module.train()(x).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())

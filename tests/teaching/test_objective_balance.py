"""The balance of objectives: targets by hand, slopes against second derivatives, steps against torch's Adam."""

from __future__ import annotations

import pytest
import torch

from seqkd.teaching.objective_balance import FLOOR, ObjectiveBalance, measure, targets


def test_targets_by_hand():
    """L / L0 = 2 and 0.5, mean 1.25; mean(G) = 3; tau = 1."""
    got = targets(torch.tensor([2.0, 1.0]), torch.tensor([1.0, 5.0]), torch.tensor([1.0, 2.0]), 1.0)
    assert got.tolist() == pytest.approx([3 * 2 / 1.25, 3 * 0.5 / 1.25])


def test_an_objective_that_is_met_gives_a_number():
    assert targets(torch.zeros(2), torch.tensor([1.0, 5.0]), torch.zeros(2), 0.15).isfinite().all()


def test_measures_are_those_of_a_second_derivative():
    """`w L + 0.3 w^2 M` at w = 0.7; M does not reach the items."""
    torch.manual_seed(0)
    users, items = torch.randn(3, 2, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    users.requires_grad_(), items.requires_grad_()
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    losses = [(users @ items.T).sigmoid().square().sum(), users.square().sum()]
    objective = weight * losses[0] + 0.3 * weight**2 * losses[1]
    found = torch.autograd.grad(objective, (users, items), create_graph=True)
    norm = found[0].norm() + found[1].norm() / 2
    (slope,) = torch.autograd.grad(norm, weight)
    factors, slopes = torch.tensor([[0.7, 0.3 * 0.7**2], [1.0, 0.6 * 0.7]], dtype=torch.float64)
    got = measure(losses, factors, slopes, (users, items), (1.0, 0.5))
    torch.testing.assert_close(got, torch.stack([objective, norm, slope]).detach())
    assert users.grad is None and items.grad is None


def test_what_reaches_no_table_measures_nothing():
    table = torch.ones(2, requires_grad=True)
    got = measure([torch.tensor(3.0)], torch.ones(1), torch.ones(1), (table,), (1.0,))
    assert got.tolist() == [3.0, 0.0, 0.0]


def test_steps_are_those_of_adam():
    """`sum |G - C|` with C held fixed, then rescaled; `G = w`, so slopes are 1."""
    weights, adam_weights = torch.ones(3), torch.ones(3, requires_grad=True)
    balance = ObjectiveBalance(3, asymmetry=0.15, learning_rate=0.05)
    adam = torch.optim.Adam([adam_weights], lr=0.05)
    norms = torch.tensor([1.0, 2.0, 6.0])
    for step in range(5):
        losses = torch.tensor([1.0, 2.0, 3.0]) / (step + 1)
        balance.step(weights, losses, norms * weights, norms, settling=step < 2)
        first = torch.tensor([1.0, 2.0, 3.0]) / min(step + 1, 2)
        goal = targets(losses, norms * adam_weights.detach(), first, 0.15)
        adam.zero_grad()
        (norms * adam_weights - goal).abs().sum().backward()
        adam.step()
        with torch.no_grad():
            adam_weights *= 3 / adam_weights.sum()
        torch.testing.assert_close(weights, adam_weights.detach())
    assert weights[0] > 1 > weights[2] and weights.sum().item() == pytest.approx(3)


def test_weights_have_a_floor():
    weights = torch.ones(2)
    balance = ObjectiveBalance(2, asymmetry=0.15, learning_rate=0.5)
    for _ in range(20):
        balance.step(weights, torch.ones(2), torch.tensor([1.0, 9.0]), torch.ones(2), settling=True)
    assert weights.min().item() == pytest.approx(FLOOR)

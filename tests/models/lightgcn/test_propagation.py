"""Propagation: against the dense matrix of the paper, its gradient, dropout."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqkd.models.lightgcn.propagation import Graph, mean_of_layers

EDGES = torch.tensor([[1, 1, 2, 2, 2, 3], [1, 2, 2, 3, 5, 4]], dtype=torch.int32)
USERS_ = 5  # rows, with the unknown user and user 4, who has nothing
ITEMS_ = 7  # rows, with padding and item 6, which nobody has


def graph(dtype=torch.float64):
    return Graph.of(EDGES, USERS_ - 1, ITEMS_ - 1, dtype)


def dense(edges=EDGES, users=USERS_, items=ITEMS_):
    """`D^-1/2 A D^-1/2` over users and then items, entry by entry."""
    matrix = np.zeros((users + items, users + items))
    for user, item in edges.T.tolist():
        matrix[user, users + item] = matrix[users + item, user] = 1
    degrees = matrix.sum(1)
    for row, column in zip(*matrix.nonzero(), strict=True):
        matrix[row, column] /= np.sqrt(degrees[row] * degrees[column])
    return torch.from_numpy(matrix)


def slow_mean(users, items, matrix, num_layers):
    layer = total = torch.cat([users, items])
    for _ in range(num_layers):
        layer = matrix @ layer
        total = total + layer
    return (total / (num_layers + 1)).split([len(users), len(items)])


def tables(dtype=torch.float64):
    torch.manual_seed(0)
    users, items = torch.randn(USERS_, 3, dtype=dtype), torch.randn(ITEMS_, 3, dtype=dtype)
    users[0] = items[0] = 0
    return users.requires_grad_(), items.requires_grad_()


@pytest.mark.parametrize("num_layers", [0, 1, 2, 3])
def test_is_the_mean_of_the_papers_layers(num_layers):
    users, items = tables()
    expected = slow_mean(users, items, dense(), num_layers)
    for made, wanted in zip(mean_of_layers(users, items, graph(), num_layers), expected, strict=True):
        torch.testing.assert_close(made, wanted, rtol=1e-12, atol=1e-12)


def test_weighted_edges_are_those_of_the_dense_weighted_matrix():
    weights = torch.tensor([1.0, 0.5, 0.25, 1.0, 2.0, 0.1], dtype=torch.float64)
    matrix = torch.zeros(USERS_ + ITEMS_, USERS_ + ITEMS_, dtype=torch.float64)
    for (user, item), weight in zip(EDGES.T.tolist(), weights, strict=True):
        matrix[user, USERS_ + item] = matrix[USERS_ + item, user] = weight
    root = matrix.sum(1).clamp(min=1e-9).sqrt()
    users, items = tables()
    expected = slow_mean(users, items, matrix / root[:, None] / root, 2)
    weighted = Graph.of(EDGES, USERS_ - 1, ITEMS_ - 1, torch.float64, weights)
    for made, wanted in zip(mean_of_layers(users, items, weighted, 2), expected, strict=True):
        torch.testing.assert_close(made, wanted, rtol=1e-12, atol=1e-12)


def test_gradient_is_that_of_the_dense_matrix_and_spares_padding():
    users, items = tables()
    torch.manual_seed(1)
    weights = torch.randn(USERS_, 3, dtype=torch.float64), torch.randn(ITEMS_, 3, dtype=torch.float64)

    def gradients(made):
        return torch.autograd.grad(sum((table * w).sum() for table, w in zip(made, weights, strict=True)), tables_)

    tables_ = (users, items)
    ours = gradients(mean_of_layers(users, items, graph(), 3))
    for grad, slow in zip(ours, gradients(slow_mean(users, items, dense(), 3)), strict=True):
        torch.testing.assert_close(grad[1:], slow[1:], rtol=1e-12, atol=1e-12)
        assert slow[0].any() and not grad[0].any()


def test_gradient_of_one_side_alone():
    users, items = tables()
    mean_of_layers(users, items, graph(), 1)[0][1].sum().backward()
    torch.testing.assert_close(users.grad[1], torch.full((3,), 0.5, dtype=torch.float64))
    touched = items.grad.any(dim=1).nonzero().flatten().tolist()
    assert touched == [1, 2] and users.grad.any(dim=1).nonzero().flatten().tolist() == [1]


def test_finite_at_large_values():
    users, items = (table.detach().float() * 1e30 for table in tables())
    assert all(torch.isfinite(table).all() for table in mean_of_layers(users, items, graph(torch.float32), 3))


def test_dropout_drops_both_directions_and_keeps_the_expectation():
    torch.manual_seed(0)
    whole, share = graph(), 0.4
    total = torch.zeros(len(whole.user_weights), dtype=torch.float64)
    for _ in range(1000):
        part = whole.drop_edges(share)
        kept = part.user_weights != 0
        torch.testing.assert_close(part.user_weights[kept], whole.user_weights[kept] / (1 - share))
        torch.testing.assert_close(part.item_weights, part.user_weights[whole.item_order])
        total += part.user_weights
    torch.testing.assert_close(total / 1000, whole.user_weights, rtol=0.12, atol=0)

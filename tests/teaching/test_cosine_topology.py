from __future__ import annotations

import torch

from seqkd.teaching.cosine_topology import cosines, group_means, unit


def test_cosines_by_hand():
    a, b = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [-6.0, -8.0]])
    torch.testing.assert_close(cosines(a, b), torch.tensor([[0.6, -1.0], [0.0, 0.0]]))


def test_a_row_of_zeros_stays_and_gets_no_gradient():
    vectors = torch.tensor([[0.0, 0.0], [1e3, 1e3]], requires_grad=True)
    lengths = unit(vectors)
    lengths[:, 0].sum().backward()
    assert lengths[0].tolist() == [0, 0] and vectors.grad[0].tolist() == [0, 0]
    assert vectors.grad[1].isfinite().all() and vectors.grad[1].any()


def test_means_of_the_groups_that_occur():
    vectors = torch.tensor([[1.0, 0.0], [2.0, 2.0], [3.0, 4.0]])
    torch.testing.assert_close(group_means(vectors, torch.tensor([7, 2, 7])), torch.tensor([[2.0, 2.0], [2.0, 2.0]]))
    assert group_means(vectors[:0], torch.zeros(0, dtype=torch.long)).shape == (0, 2)

from __future__ import annotations

import torch

from seqkd.teaching.neighbourhood import halfway, means


def test_means_by_hand():
    vectors = torch.tensor([[0.0, 0.0], [1.0, 3.0], [5.0, 1.0], [0.0, 0.0]])
    of = torch.tensor([0, 0, 1, 2, 2])
    neighbours = torch.tensor([1, 2, 2, 3, 1])  # about 3 the teacher says nothing
    expected = torch.tensor([[3.0, 2.0], [5.0, 1.0], [1.0, 3.0], [0.0, 0.0]])
    torch.testing.assert_close(means(of, neighbours, vectors, 4), expected)


def test_who_has_no_neighbours_keeps_the_own_vector():
    own = torch.tensor([[1.0, 1.0], [2.0, 4.0]])
    mean = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    torch.testing.assert_close(halfway(own, mean), torch.tensor([[1.0, 1.0], [3.0, 2.0]]))

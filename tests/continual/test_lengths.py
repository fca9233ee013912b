"""How long newcomers are, by hand and by a slow loop."""

from __future__ import annotations

import math

import torch

from seqkd.continual.lengths import lengthened, peer_lengths


def test_by_hand():
    table = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [0.0, 3.0], [8.0, 6.0]])
    interactions = torch.tensor([0, 0, 1, 1, 10, 1, 0, 9, 200, 3])
    # 1: like the second and third; 0: like the first; 9: like 10; 200: nearest are 10; 3: 1 is as far as 10, smaller
    assert peer_lengths(table, interactions)[:, 0].tolist() == [2.0, 5.0, 10.0, 10.0, 2.0]


def test_a_slow_loop_agrees():
    torch.manual_seed(0)
    known, new = 40, 25
    table = torch.randn(known + 1, 3)
    interactions = torch.randint(0, 60, (known + new + 1,))

    def scale(count: int) -> int:
        return round(2 * math.log2(count)) if count else -2

    expected = []
    for mine in interactions[known + 1 :].tolist():
        theirs = [scale(count) for count in interactions[1 : known + 1].tolist()]
        near = min(sorted(set(theirs)), key=lambda one: abs(one - scale(mine)))
        lengths = [table[1 + at].norm() for at, one in enumerate(theirs) if one == near]
        expected.append(sum(lengths) / len(lengths))
    torch.testing.assert_close(peer_lengths(table, interactions)[:, 0], torch.stack(expected))


def test_directions_stay_and_zeros_too():
    rows = torch.tensor([[0.3, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(lengthened(rows, torch.tensor([[2.0], [3.0]])), torch.tensor([[1.2, 1.6], [0.0, 0.0]]))

from __future__ import annotations

import torch

from seqkd.functional.list_ranks import ranks_in


def test_ranks_are_those_of_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    lists = torch.stack([torch.randperm(30, generator=generator)[:12] + 1 for _ in range(50)]).int()
    lists[::3, 9:] = 0
    entities = torch.randint(1, 31, (50, 20), generator=generator)
    for row, wanted, ranks in zip(lists.tolist(), entities.tolist(), ranks_in(lists, entities).tolist(), strict=True):
        assert ranks == [row.index(entity) if entity in row else 12 for entity in wanted]


def test_ids_may_be_large_and_rows_few():
    big = 2**31 - 1
    assert ranks_in(torch.tensor([[big, 5, 0]], dtype=torch.int32), torch.tensor([[5, big, 7]])).tolist() == [[1, 0, 3]]
    assert ranks_in(torch.zeros(0, 3, dtype=torch.int32), torch.zeros(0, 2, dtype=torch.int32)).shape == (0, 2)

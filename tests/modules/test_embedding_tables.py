"""Tables that grow in place."""

from __future__ import annotations

import torch
from torch import nn

from seqkd.modules.embedding_tables import add_rows


def test_new_rows_follow_and_old_ones_stay():
    tables = [nn.Embedding(4, 3, padding_idx=0), nn.Embedding(4, 1), nn.Linear(2, 4)]
    before = [[weight.clone() for weight in table.parameters()] for table in tables]
    rows = torch.arange(6.0).view(2, 3)
    add_rows(tables, 2, rows)
    assert torch.equal(tables[0].weight[4:], rows)
    for number, (table, weights) in enumerate(zip(tables, before, strict=True)):
        for now, old in zip(table.parameters(), weights, strict=True):
            assert torch.equal(now[:4], old) and now.shape[1:] == old.shape[1:]
            assert now.requires_grad and now.is_leaf
            if number:  # row 0 is padding, and says nothing
                torch.testing.assert_close(now[4:], old[1:].mean(0).expand(2, *old.shape[1:]))
    assert [tables[0].num_embeddings, tables[1].num_embeddings, tables[2].out_features] == [6, 6, 6]
    assert tables[0].padding_idx == 0 and tables[2].in_features == 2


def test_frozen_and_half_precision_tables_stay_what_they_are():
    table = nn.Embedding(3, 2, dtype=torch.bfloat16).requires_grad_(False)
    add_rows([table], 1, torch.ones(1, 2))
    assert table.weight.dtype == torch.bfloat16 and not table.weight.requires_grad
    assert table(torch.tensor([3])).tolist() == [[1.0, 1.0]]

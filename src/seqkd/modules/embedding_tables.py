"""Tables with a row for each user or item, which grow with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..catalogue import PADDING


@torch.no_grad()
def add_rows(tables: Sequence[nn.Module], count: int, rows: Tensor | None = None) -> None:
    """Give tables `count` more rows, in place; the old ones stay bit-equal.

    Args:
        tables: `nn.Embedding`, or `nn.Linear` with an output for each row, bias included.
        rows: `(count, D)` new rows of the first table; all other new rows are the mean of the table's old ones.
    """
    for place, table in enumerate(tables):
        for name, old in table.named_parameters(recurse=False):
            new = old[PADDING + 1 :].mean(dim=0).expand(count, *old.shape[1:])
            if place == 0 and rows is not None and name == "weight":
                new = rows.to(old)
            setattr(table, name, nn.Parameter(torch.cat([old, new]), old.requires_grad))
        size = "out_features" if isinstance(table, nn.Linear) else "num_embeddings"
        setattr(table, size, getattr(table, size) + count)

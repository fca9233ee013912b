"""Start a student's item table from what its teachers know about items, squeezed to the student's width."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import KnowledgeError
from .knowledge import Knowledge


def principal_items(knowledges: Mapping[str, Knowledge], width: int, std: float = 0.05) -> Tensor:
    """`(I+1, D)`: the first D principal components of the teachers' item matrices side by side, row 0 zero.

    Every teacher's rows are brought to unit length first, so that none speaks louder than another.

    Args:
        knowledges: by teacher, each with `item_embeddings`.
        width: D.
        std: standard deviation of the result; embeddings start from 0.02 otherwise.

    Raises:
        KnowledgeError: the teachers' vectors together are narrower than the student.
    """
    tables = [F.normalize(knowledge.table("item_embeddings")[1:].float(), dim=1) for knowledge in knowledges.values()]
    items = torch.cat(tables, dim=1)
    items = items - items.mean(dim=0)  # (I, sum of d)
    if min(items.shape) < width:
        raise KnowledgeError(f"{width} components cannot be drawn from item vectors of shape {tuple(items.shape)}.")
    left, scale, _ = torch.linalg.svd(items, full_matrices=False)
    components = left[:, :width] * scale[:width]
    return F.pad(components / components.std() * std, (0, 0, 1, 0))

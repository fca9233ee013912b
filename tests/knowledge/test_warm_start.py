from __future__ import annotations

import pytest
import torch

from seqkd.catalogue import Catalogue
from seqkd.errors import KnowledgeError
from seqkd.knowledge import Knowledge, Source
from seqkd.knowledge.warm_start import principal_items


def knows(table):
    return Knowledge.from_tables(
        {"item_embeddings": table}, source=Source("t", "r", "s", "train"), catalogue=Catalogue("abcd")
    )


def test_distances_survive_when_the_width_suffices():
    """Unit rows on a circle lie in a plane: two components keep all their distances, up to one scale."""
    angles = torch.tensor([0.0, 0.5, 1.5, 3.0])
    plane = torch.stack([angles.cos(), angles.sin()], 1) @ torch.linalg.qr(torch.randn(6, 2)).Q.T  # (4, 6)
    table = torch.cat([torch.zeros(1, 6), 7 * plane])  # lengths do not count
    start = principal_items({"t": knows(table)}, 2)
    assert start.shape == (5, 2) and (start[0] == 0).all()
    assert start[1:].std().item() == pytest.approx(0.05)
    ratio = torch.pdist(start[1:]) / torch.pdist(plane)
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_too_wide_a_student_is_refused():
    with pytest.raises(KnowledgeError, match="3 components"):
        principal_items({"t": knows(torch.randn(5, 2))}, 3)

from __future__ import annotations

import pytest
import torch

from seqkd.catalogue import Catalogue
from seqkd.errors import ConfigError, DataError
from seqkd.models.lightgcn import LightGCNConfig, LightGCNModel
from seqkd.models.mf import MFConfig, MFModel
from seqkd.teaching.lwc_block import check_grown, graph_of, neighbours_in

EDGES = torch.tensor([[1, 1, 2, 2, 3, 3, 4], [1, 2, 1, 2, 2, 3, 5]])


def mf(num_users: int = 4, num_items: int = 5, width: int = 2) -> MFModel:
    return MFModel(MFConfig(num_users=num_users, num_items=num_items, hidden_size=width))


def test_neighbours_by_hand():
    """Users 1 and 2 have the same, 3 shares one of two with each: cosines 1 and 1/2."""
    graphs = neighbours_in(torch.cat([EDGES, EDGES[:, :2]], dim=1), 5, 6, degree=1.2)
    everyone = torch.arange(1, 6)
    assert graphs["ui"].lists(everyone).tolist() == [[1, 2], [1, 2], [2, 3], [5, 0], [0, 0]]
    assert graphs["iu"].lists(torch.arange(7)).tolist() == [
        [0] * 3,
        [1, 2, 0],
        [1, 2, 3],
        [3, 0, 0],
        [0] * 3,
        [4, 0, 0],
        [0] * 3,
    ]
    assert graphs["uu"].lists(everyone).tolist() == [[2, 3], [1, 3], [1, 2], [0, 0], [0, 0]]  # 1.2 on average
    sparser = neighbours_in(EDGES, 5, 6, degree=0.5)  # 0.4
    assert sparser["uu"].lists(everyone).tolist() == [[2], [1], [0], [0], [0]]


def test_the_graph_of_a_model():
    config = LightGCNConfig(num_users=4, num_items=5, hidden_size=2)
    assert torch.equal(graph_of(LightGCNModel(config, EDGES)), EDGES.int())
    with pytest.raises(ConfigError, match="no graph yet"):
        graph_of(LightGCNModel(LightGCNConfig(num_users=4, num_items=5, hidden_size=2)))
    with pytest.raises(ConfigError, match="MFModel does not hold the interactions"):
        graph_of(mf())


def test_what_does_not_fit():
    check_grown(mf(), mf(6, 7))
    with pytest.raises(DataError, match=r"1\.\.3"):
        neighbours_in(EDGES, 3, 5, 1.0)
    with pytest.raises(ConfigError, match="width 3 with MFModel of width 2"):
        check_grown(mf(), mf(width=3))
    with pytest.raises(ConfigError, match="5 items, and the student's 4"):
        check_grown(mf(), mf(num_items=4))
    before, student = mf(), mf(6)
    before.set_users(Catalogue("abcd"))
    student.set_users(Catalogue("abxdef"))
    with pytest.raises(ConfigError, match="4 users, and the student's 6 do not begin with these"):
        check_grown(before, student)

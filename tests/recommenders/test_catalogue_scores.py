"""Pieces are what `score` gives at once, for models of two tables and for others."""

from __future__ import annotations

import pytest
import torch

from seqkd.models.cml import CMLConfig, CMLModel
from seqkd.models.mf import MFConfig, MFModel
from seqkd.recommenders.catalogue_scores import catalogue_scores, pairs_within

SIZES = {"num_items": 9, "num_users": 7, "hidden_size": 4}


@pytest.mark.parametrize("size", [1, 25, 30, None])
@pytest.mark.parametrize("model", [MFModel(MFConfig(**SIZES, temperature=0.5)), CMLModel(CMLConfig(**SIZES))])
def test_pieces_are_the_whole(model, size):
    torch.manual_seed(0)
    model.eval()
    queries = model.user_embeddings(torch.arange(1, 8)).detach() + torch.randn(7, 1)
    whole = model.score(queries)
    pieces = list(catalogue_scores(model, queries, size=size))
    assert [part.start for part, _ in pieces] == list(range(0, 7, {1: 1, 25: 2, 30: 3, None: 7}[size]))
    assert [part.stop for part, _ in pieces][-1] == 7
    for part, scores in pieces:
        torch.testing.assert_close(scores, whole[part])
    assert (whole[:, 0] == torch.finfo(whole.dtype).min).all()


def test_nobody_asks():
    assert not list(catalogue_scores(MFModel(MFConfig(**SIZES)), torch.zeros(0, 4)))


def test_items_are_made_once(monkeypatch):
    model, calls = MFModel(MFConfig(**SIZES)).eval(), []
    made = type(model).item_embeddings
    monkeypatch.setattr(type(model), "item_embeddings", lambda self, ids=None: calls.append(ids) or made(self, ids))
    assert len(list(catalogue_scores(model, torch.zeros(5, 4), size=10))) == 5 and calls == [None]


def test_pairs_of_a_piece():
    owner = torch.tensor([0, 0, 1, 3, 3, 3, 4])
    assert [pairs_within(owner, slice(low, low + 2)) for low in (0, 2, 4)] == [slice(0, 3), slice(3, 6), slice(6, 7)]

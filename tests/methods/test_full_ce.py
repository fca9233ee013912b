from __future__ import annotations

import pytest
import torch

from seqkd.distiller import Distiller
from seqkd.errors import ConfigError
from seqkd.functional.catalogue_cross_entropy import catalogue_cross_entropy
from seqkd.method import SoftLabels
from seqkd.methods.full_ce import FullCE, FullCEConfig
from seqkd.models.mf import MFModel

from .tiny_rankings import batch_of, mf, near, rankings, set_split


def distiller_of(split, teachers=1, length=6, student=None, **config):
    knowledge = {f"t{seed}": rankings(split, seed, length) for seed in range(teachers)}
    return Distiller(student or mf(split), {"full_ce": FullCE(FullCEConfig(**config))}, {}, knowledge)


def slow(split, query, temperature=1.0, seed=0, top=None):
    """The paper's sum, item by item, in float64."""
    said, student = rankings(split, seed), mf(split).double()
    items = range(1, 21) if top is None else said.table("query_topk")[query, :top].tolist()
    theirs = said.table("item_embeddings").double() @ said.table("query_embeddings")[query].double()
    ours = student.item_embedding.weight @ student.user_embedding.weight[query + 1]
    z = sum(torch.exp(theirs[i] / temperature) for i in items)
    s = sum(torch.exp(ours[i] / temperature) for i in range(1, 21))
    return -sum(
        (torch.exp(theirs[i] / temperature) / z * torch.log(torch.exp(ours[i] / temperature) / s)).item() for i in items
    )


def loss_of(distiller, batch):
    return distiller(**batch)["full_ce"].item()


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_is_the_paper_s_sum(temperature):
    split = set_split()
    pairs = [0, 1, 30, 60]  # three users, the first twice
    for candidates, top in (("catalogue", None), ("top", 6)):
        distiller = distiller_of(split, candidates=candidates, temperature=temperature)
        batch = batch_of(split, pairs, distiller)
        ids = sorted(set(batch["query_ids"].tolist()))
        assert len(ids) == 3
        expected = sum(slow(split, query, temperature, top=top) for query in ids) / 3
        assert loss_of(distiller, batch) == pytest.approx(expected, rel=1e-5)


def test_the_distiller_gets_soft_labels_where_it_can():
    split = set_split()
    distiller = distiller_of(split, teachers=2)
    batch = batch_of(split, [0, 30], distiller)
    output = distiller.student(user_ids=batch["user_ids"])
    answer = distiller.methods["full_ce"](distiller.student, batch, output, distiller._knowledge_of(batch))
    assert isinstance(answer, SoftLabels) and answer.items.shape == (2, 12)
    torch.testing.assert_close(answer.probs.sum(1), torch.ones(2))
    halves = sum(slow(split, query, top=6, seed=seed) for query in batch["query_ids"].tolist() for seed in (0, 1)) / 4
    assert loss_of(distiller, batch) == pytest.approx(halves, rel=1e-5)


@pytest.mark.parametrize("candidates", ["catalogue", "top"])
def test_some_queries_stand_for_all(candidates):
    split = set_split()
    pairs = [0, 1, 30, 60]  # three users, the first twice
    whole = distiller_of(split, candidates=candidates)
    batch = batch_of(split, pairs, whole)
    one = distiller_of(split, candidates=candidates, max_queries=1)
    drawn = {round(loss_of(one, batch), 4) for _ in range(60)}
    top = 6 if candidates == "top" else None
    alone = [slow(split, query, top=top) for query in set(batch["query_ids"].tolist())]
    assert drawn == {round(loss, 4) for loss in alone}  # one of three, times three, over three
    assert loss_of(distiller_of(split, candidates=candidates, max_queries=3), batch) == pytest.approx(sum(alone) / 3)


def test_short_lists():
    split = set_split()
    distiller = distiller_of(split)
    batch = batch_of(split, [0], distiller)
    batch["t0/query_topk"] = batch["t0/query_topk"].clone()
    batch["t0/query_topk"][:, 2:] = 0
    assert loss_of(distiller, batch) == pytest.approx(slow(split, int(batch["query_ids"][0]), top=2), rel=1e-5)


def test_catalogue_in_pieces_with_its_gradient(monkeypatch):
    torch.manual_seed(0)
    queries, items = torch.randn(7, 3).double().requires_grad_(), torch.randn(11, 3).double().requires_grad_()
    theirs = torch.randn(7, 5).double(), torch.randn(11, 5).double()

    def plain(q, i):
        return -((theirs[0] @ theirs[1][1:].T / 2).softmax(1) * (q @ i[1:].T / 2).log_softmax(1)).sum(1)

    weights = torch.rand(7).double()
    expected = torch.autograd.grad((plain(queries, items) * weights).sum(), (queries, items))
    for chunk in (10**6, 25):
        monkeypatch.setattr("seqkd.functional.catalogue_cross_entropy.CHUNK", chunk)
        losses = catalogue_cross_entropy(queries, items, *theirs, temperature=2.0)
        near(losses, plain(queries, items).detach())
        for actual, wanted in zip(
            torch.autograd.grad((losses * weights).sum(), (queries, items)), expected, strict=True
        ):
            near(actual, wanted)
    assert not expected[1][0].any()  # padding learns nothing


def test_large_scores_stay_finite():
    queries, items = torch.tensor([[1e3], [-1e3]]).requires_grad_(), torch.tensor([[0.0], [1.0], [-1.0]])
    losses = catalogue_cross_entropy(queries, items, -queries, items)
    losses.sum().backward()
    torch.testing.assert_close(losses.detach(), torch.tensor([2e3, 2e3]))
    assert queries.grad.flatten().tolist() == [2.0, -2.0]


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="max_queries must be at least 1, got 0"):
        FullCEConfig(max_queries=0)

    class NoDotProduct(MFModel):
        scores_by_dot_product = False

    split = set_split()
    student = NoDotProduct(mf(split).config)
    distiller_of(split, student=student)
    for config in ({"candidates": "catalogue"}, {"temperature": 2.0}):
        with pytest.raises(ConfigError, match="NoDotProduct does not score by a dot product"):
            distiller_of(split, student=student, **config)
    with pytest.raises(ConfigError, match="'catalogue'"):
        FullCEConfig(candidates="all")
    with pytest.raises(ConfigError, match="temperature"):
        FullCEConfig(temperature=0)

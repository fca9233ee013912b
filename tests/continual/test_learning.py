"""What a model hears, rehearses and avoids while it learns a block; nothing is trained here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from seqkd.config import ModelConfig
from seqkd.continual import learning
from seqkd.continual.fit import FitConfig
from seqkd.continual.learning import Source, ask, extend, learn
from seqkd.continual.rehearsal import best_pairs, rehearsal_rows
from seqkd.data.stream_rows import whole
from seqkd.pipeline.training import new_model

from .small import config, stream

SAS = {"hidden_size": 8, "num_hidden_layers": 1, "max_position_embeddings": 20}
RRD = {"interesting": 4, "uninteresting": 4, "list_length": 10}


def model(block, kind="mf", seed=0):
    made = new_model(block, ModelConfig(kind, SAS if kind == "sasrec" else {"hidden_size": 8}), "model", seed)
    return made.eval()


@pytest.fixture
def fitted(monkeypatch):
    """The arguments of `fit`, which does nothing."""
    told = {}

    def fit(model, block, stage, folder, **how):
        told.update(how, block=block, stage=stage)
        return {"epochs": 0}

    monkeypatch.setattr(learning, "fit", fit)
    return told


@pytest.mark.parametrize(("policy", "edges"), [("cumulative", "both"), ("block", "new"), ("decayed", "both")])
def test_tables_and_graph_grow(policy, edges):
    first, second = stream()[:2]
    grown = model(first, "lightgcn")
    pairs = [set(zip(*(part.tolist() for part in block.pairs()), strict=True)) for block in (first, second)]
    extend(grown, second, config(graph=policy))
    assert grown.users == second.users and grown.catalogue == second.catalogue
    expected = pairs[1] | pairs[0] if edges == "both" else pairs[1]
    assert set(map(tuple, grown.edges.T.tolist())) == expected
    if policy == "decayed":
        once = dict(zip(map(tuple, grown.edges.T.tolist()), grown.edge_weights.tolist(), strict=True))
        assert all(weight == (1.0 if edge in pairs[1] else 0.5) for edge, weight in once.items())


def test_how_new_rows_start_may_be_another_than_the_run_s():
    first, second = stream()[:2]
    zeros, near = model(first), model(first)
    extend(zeros, second, config(), init="zeros")
    extend(near, second, config())
    known = len(first.catalogue) + 1
    assert not zeros.item_embedding.weight[known:].any() and near.item_embedding.weight[known:].any()
    assert torch.equal(zeros.item_embedding.weight[:known], near.item_embedding.weight[:known])


def test_replay_hears_each_source_about_who_was_known(fitted):
    blocks = stream()[:2]
    sources = {"stability": Source(model(blocks[0]), blocks[0]), "student": Source(model(blocks[1], seed=1), blocks[1])}
    learner = model(blocks[0], "lightgcn")
    noted = learn(learner, blocks, config(), config().update_teacher, sources, Path())
    assert noted == {"epochs": 0} and fitted["metric"] == "recall@5" and fitted["block"] is blocks[1]
    assert list(fitted["knowledge"]) == ["stability", "student"] and list(fitted["methods"]) == ["replay"]
    known, everyone = blocks[1].known_users, len(blocks[1].users)
    for said in fitted["knowledge"].values():
        assert said.num_queries == everyone and said.catalogue == blocks[1].catalogue
        assert said.tables["query_topk"].shape[1] == 8  # `rehearsed`
    topk = {name: said.table("query_topk") for name, said in fitted["knowledge"].items()}
    assert topk["stability"].max() <= len(blocks[0].catalogue) < topk["student"].max()
    assert not topk["stability"][known:].any() and topk["student"][known:].any(), "of new users the student alone tells"
    for name, block in (("stability", blocks[0]), ("student", blocks[1])):
        masked = rehearsal_rows(blocks, block)["item_ids"]
        assert len(masked) == (known if name == "stability" else everyone)
        assert not any(set(items) & set(row) for items, row in zip(topk[name].tolist(), masked, strict=False))
    had = torch.stack([torch.from_numpy(ids) for ids in blocks[1].pairs("train")])
    new = had[:, had[1] > blocks[1].known_items]
    assert new.shape[1] and not (topk["student"][new[0] - 1] == new[1][:, None]).any(), "nor what is had of new items"
    assert len(fitted["methods"]["replay"].rows) == everyone
    assert fitted["avoid"] is None and fitted["rows"] is None


def test_draws_by_source_begin_with_the_one_proxy_there_is(fitted):
    blocks = stream()[:2]
    chosen = config()
    chosen.update_teacher.methods["replay"]["draws"] = {"stability": 2, "plasticity": 3, "student": 1}
    sources = {"stability": Source(model(blocks[0]), blocks[0]), "student": Source(model(blocks[1]), blocks[1])}
    learn(model(blocks[0]), blocks, chosen, chosen.update_teacher, sources, Path())
    assert fitted["methods"]["replay"].config.draws == {"stability": 2, "student": 1}


def test_the_best_of_the_sources_are_no_negatives_on_demand(fitted):
    blocks = stream()[:2]
    sources = {"stability": Source(model(blocks[0]), blocks[0])}
    learn(model(blocks[0]), blocks, config(avoided=3), config().update_student, sources, Path())
    expected = best_pairs([*fitted["knowledge"].values()], 3)
    assert torch.equal(fitted["avoid"], expected) and expected.shape[1] == 3 * blocks[1].known_users


def test_replay_of_sequences_rehearses_histories(fitted):
    blocks = stream("positions")[:2]
    sources = {"stability": Source(model(blocks[0], "sasrec"), blocks[0])}
    learn(model(blocks[0], "sasrec"), blocks, config(), config().update_student, sources, Path())
    rows = fitted["methods"]["replay"].rows
    assert rows.users is None and all(len(row.item_ids) == row.first_target > 0 for row in rows)
    assert fitted["knowledge"]["stability"].num_queries == len(rows)


@pytest.mark.parametrize("buffered", [False, True])
def test_without_forgetting_it_hears_itself_about_what_it_trains_on(fitted, buffered):
    """As it is when it has grown, before it trains."""
    blocks = stream()[:2]
    train = whole(blocks, keep=0.5).train if buffered else None
    stage = FitConfig(methods={"rrd": RRD}, weights={"rrd": 0.1})
    learner = model(blocks[0])
    learn(learner, blocks, config(), stage, {}, Path(), train=train)
    (said,) = fitted["knowledge"].values()
    rows = blocks[1].train if train is None else train
    assert list(fitted["knowledge"]) == ["before"] and said.num_queries == len(rows) and fitted["rows"] is train
    again = ask(learner.eval(), blocks[1], rows, frozenset({"query_topk"}), 10)
    assert torch.equal(said.table("query_topk"), again.table("query_topk"))
    users = blocks[1].users.encode(rows["user_id"])
    scores = learner.score(learner(torch.from_numpy(users)).query_embeddings)
    for row, items in enumerate(rows["item_ids"]):
        scores[row, items] = -torch.inf
    scores[:, 0] = -torch.inf
    assert torch.equal(said.table("query_topk")[:, 0].long(), scores.argmax(dim=1))


def test_lwc_kd_keeps_the_model_before_the_block(fitted):
    blocks = stream()[:2]
    learner = model(blocks[0])
    old = learner.item_embedding.weight.clone()
    learn(learner, blocks, config(), FitConfig(methods={"lwc_kd": {"clusters": 3}}), {}, Path())
    before, edges = fitted["methods"]["lwc_kd"]._before
    assert torch.equal(before.item_embedding.weight, old) and before is not learner
    assert edges.shape[1] == len(blocks[0].pairs()[0]) and not fitted["knowledge"]


def test_labels_alone_ask_nobody(fitted):
    blocks = stream()[:2]
    learn(model(blocks[0]), blocks, config(), FitConfig(), {"x": None}, Path())
    assert not fitted["knowledge"] and not fitted["methods"]


def test_scores_come_with_their_lists():
    block = stream()[0]
    said = ask(model(block), block, block.train, frozenset({"query_topk", "query_scores", "item_topk"}), 4)
    assert set(said.tables) == {"query_topk", "query_scores", "item_topk"}
    assert said.source.options["filter_seen"] is True and said.tables["item_topk"].shape[1] == 4

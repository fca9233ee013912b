from __future__ import annotations

import json

import pytest
import torch

from seqkd.batches.positives import Positives
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError
from seqkd.methods.ir_rrd import IRRRD, IRRRDConfig, distinct_items, scores_of_users, who_have
from seqkd.models.mf import MFConfig, MFModel
from seqkd.teaching.ranking_lists import Lists, relaxed_ranking_of

from ..tiny import tiny_sasrec
from .tiny_rankings import batch_of, begin, dataset, mf, near, rankings, set_split, slow_relaxed_ranking, tensor

CONFIG = {"interesting": 3, "uninteresting": 2, "item_interesting": 3, "item_uninteresting": 2}


def distiller_of(split, **config):
    return Distiller(mf(split), {"ir_rrd": IRRRD(IRRRDConfig(**{**CONFIG, **config}))}, {}, {"one": rankings(split)})


def losses_of(distiller, batch):
    output = distiller.student(user_ids=batch["user_ids"])
    return distiller.methods["ir_rrd"](distiller.student, batch, output, distiller._knowledge_of(batch))


def test_golden(golden):
    """The golden ids count from 0, ours from 1."""
    case = json.loads((golden / "ir_rrd.json").read_text())["cases"][0]
    inputs, expected = case["inputs"], case["expected"]
    student = MFModel(MFConfig(num_users=12, num_items=15, hidden_size=3)).double()
    for table, values in ((student.user_embedding, inputs["user_emb"]), (student.item_embedding, inputs["item_emb"])):
        table.weight.data[1:] = tensor(values)
    ids = {name: torch.tensor(values) + 1 for name, values in inputs.items() if "interesting" in name}
    lists = Lists(ids["interesting_items"], ids["uninteresting_items"])
    queries = student(torch.tensor(inputs["unique_users"]) + 1).query_embeddings
    user_side = relaxed_ranking_of(student.score(queries, lists.both), lists)
    near(user_side.sum(), expected["urrd_loss"])

    items = distinct_items(lists, 15)
    assert (items - 1).tolist() == expected["batch_items_unique"]
    users = Lists(ids["interesting_users_per_item"][items - 1], ids["uninteresting_users_per_item"][items - 1])
    item_side = relaxed_ranking_of(scores_of_users(student, items, users.both), users)
    near(item_side.sum(), expected["ir_loss"])
    item_side.sum().backward()
    near(student.user_embedding.weight.grad[1:], expected["grad_user_emb_ir_only"])
    near(student.item_embedding.weight.grad[1:], expected["grad_item_emb_ir_only"])

    batch = [torch.tensor(inputs[f"batch_{name}"]) + 1 for name in ("users", "pos_items", "neg_items")]
    bpr = student.loss(student(batch[0]).query_embeddings, batch[1], batch[2][:, None]).sum()
    near(bpr, expected["base_bpr_loss"])
    total = bpr + inputs["lambda_URRD"] * user_side.sum() + inputs["lambda_IR"] * item_side.detach().sum()
    near(total, expected["total"])


def test_both_sides_are_the_paper_s_sums_per_distinct_query():
    split = set_split()
    distiller = distiller_of(split)
    method, student = distiller.methods["ir_rrd"], distiller.student
    begin(method, split)
    batch = batch_of(split, [0, 1, 30, 31, 60], distiller)
    users, items = student.user_embedding.weight.detach().double(), student.item_embedding.weight.detach().double()
    queries = sorted(set(batch["query_ids"].tolist()))
    user_side, listed = 0.0, set()
    for query in queries:
        ids = [part[0].tolist() for part in method.lists.of("one", torch.tensor([query]))]
        user_side += slow_relaxed_ranking(*((items[i] @ users[query + 1]).numpy() for i in ids))
        listed |= {*ids[0], *ids[1]}
    item_side = 0.0
    for item in listed:
        ids = [part[0].tolist() for part in method.item_lists.of("one", torch.tensor([item]))]
        item_side += slow_relaxed_ranking(*((users[u] @ items[item]).numpy() for u in ids))
    expected = (user_side + 0.5 * item_side) / len(queries)
    assert losses_of(distiller, batch).mean().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("sample", [{"max_items": 3}, {"max_queries": 1}, {"max_items": 3, "max_queries": 2}])
def test_a_sample_is_unbiased(sample):
    split = set_split()
    whole, part = distiller_of(split), distiller_of(split, **sample)
    for distiller in (whole, part):
        begin(distiller.methods["ir_rrd"], split)
    batch = batch_of(split, [0, 30, 60], whole)
    exact = losses_of(whole, batch).mean().item()
    torch.manual_seed(0)
    estimates = torch.stack([losses_of(part, batch).mean() for _ in range(600)])
    assert estimates.std() > 0
    assert abs(estimates.mean().item() - exact) < 4 * estimates.std().item() / 600**0.5


def test_lists_of_users_leave_out_who_has_the_item():
    split = set_split()
    distiller = distiller_of(split)
    begin(distiller.methods["ir_rrd"], split)
    items = torch.arange(1, 21)
    lists = distiller.methods["ir_rrd"].item_lists.of("one", items)
    assert not who_have(Positives(dataset(split)), items, lists.both)[lists.both > 0].any()
    assert lists.both.max() <= 24
    had = who_have(Positives(dataset(split)), items, torch.arange(1, 25).expand(20, -1))
    for row, history in enumerate(split.train["item_ids"]):
        assert sorted(items[had[:, row]].tolist()) == sorted(history)


def test_gradient_reaches_users_who_are_not_in_the_batch():
    split = set_split()
    distiller = distiller_of(split)
    begin(distiller.methods["ir_rrd"], split)
    batch = batch_of(split, [0], distiller)
    losses_of(distiller, batch).sum().backward()
    moved = distiller.student.user_embedding.weight.grad.abs().sum(1).nonzero().flatten()
    assert len(moved) > 5 and 0 not in moved


def test_students_without_a_user_table_are_refused():
    split = set_split()
    method = {"ir_rrd": IRRRD(IRRRDConfig(**CONFIG))}
    with pytest.raises(ConfigError, match="SASRecModel has no vector for a user"):
        Distiller(tiny_sasrec(split), method, {}, {"one": rankings(split)})

    class ReadsHistories(MFModel):
        inputs = ("user_ids", "histories")

    student = ReadsHistories(MFConfig(num_users=24, num_items=20, hidden_size=4))
    with pytest.raises(ConfigError, match="histories"):
        Distiller(student, method, {}, {"one": rankings(split)})


@pytest.mark.parametrize("wrong", [{"max_items": 0}, {"item_temperature": 0.0}, {"item_interesting": 501}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        IRRRDConfig(**wrong)

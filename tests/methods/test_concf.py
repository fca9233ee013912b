"""ConCF: golden losses and gradients, the consensus of a run, the balance without a leak, resume, one head kept."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from seqkd.batches.positives import Positives
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError
from seqkd.evaluation.head_selection import best_head, consensus_topk, head_metrics
from seqkd.functional.distinct import first_of_each
from seqkd.functional.head_consensus import HeadConsensusConfig, head_consensus
from seqkd.functional.relaxed_ranking import relaxed_ranking
from seqkd.knowledge.interview import best_items
from seqkd.method import Epoch
from seqkd.methods import concf as concf_module
from seqkd.methods.concf import ConCF, ConCFMethodConfig
from seqkd.models.concf import modeling_concf
from seqkd.models.concf.configuration_concf import HEADS
from seqkd.recommenders import multi_head
from seqkd.trainer import DistillationTrainer
from tests.models.concf.golden_concf import case_of, clamped_multinomial, model_of, near, pairs_of, tensor
from tests.models.concf.test_modeling_concf import concf

from ..tiny import ITEMS, USERS, arguments, nobody, tiny_split
from .tiny_rankings import batch_of, dataset, mf, set_split, slow_relaxed_ranking

SMALL = {
    "interesting": 3, "uninteresting": 3, "top": 6, "list_length": 6, "start": 2, "refresh": 1, "window": 2,
}  # fmt: skip


def method_of(**config) -> ConCF:
    return ConCF(ConCFMethodConfig(**{**SMALL, **config}))


def distiller_of(split, student=None, **config) -> Distiller:
    student = concf(split, dropout_prob=0.0) if student is None else student
    return Distiller(student, {"concf": method_of(**config)})


def begin(distiller: Distiller, split, number: int) -> None:
    rows = dataset(split)
    epoch = Epoch(number, 10, torch.Generator(), Positives(rows), lambda k: best_items(distiller.student, rows, k))
    distiller.methods["concf"].on_epoch_begin(epoch)


def test_golden_listwise(golden):
    case = json.loads((golden / "concf_listwise.json").read_text())["cases"][0]
    for suffix, limits in (("", (-np.inf, np.inf)), ("_after_clamp_demo", case["inputs"]["clamp_demo"])):
        scores = tensor(case["inputs"]["S"]).requires_grad_()
        loss = relaxed_ranking(*scores.clamp(*limits).split(4, dim=1)).sum()
        near(loss, case["expected"][f"loss{suffix}"])
        loss.backward()
        near(scores.grad, case["expected"][f"grad{suffix}"])


@pytest.fixture
def golden_run(golden, monkeypatch):
    """The distiller of the golden case as the authors have it, and its batch; weights are those of the case."""
    monkeypatch.setattr(modeling_concf, "multinomial", clamped_multinomial)
    case = case_of(golden)
    inputs = case["inputs"]
    model, (users, targets, negatives) = model_of(inputs), pairs_of(inputs)
    model.head_weights.copy_(tensor(inputs["balance_weights"]))
    half = {"interesting": 4, "uninteresting": 4, "top": 8, "list_length": 8}
    method = ConCF(ConCFMethodConfig(**half, alpha=inputs["alpha"], untaught=("item_multinomial",)))
    distiller = Distiller(model, {"concf": method}).double().eval()
    method.lists[torch.tensor(inputs["CL_users"]) + 1] = torch.tensor(inputs["CL_items"]).int() + 1
    method.taught = True
    return distiller, {"user_ids": users, "query_ids": users - 1, "targets": targets, "negatives": negatives}, case


def test_golden_consensus_losses(golden_run):
    distiller, batch, case = golden_run
    model, method = distiller.student, distiller.methods["concf"]
    rows = first_of_each(batch["query_ids"])
    losses = torch.stack(method.consensus_losses(model, batch, model(batch["user_ids"]), rows))  # (h, 3)
    weighted = model.head_weights.clamp(0.5, 2.0) * losses.sum(dim=1)
    near(weighted[:5], case["expected"]["CL_losses_ABCDE_with_clipped_weights"])
    assert weighted[5] == 0
    weighted.sum().backward()
    for name in ("user", "item"):
        grad = model.get_submodule(f"{name}_embedding").weight.grad[1:]
        near(grad, case["expected"][f"grad_{name}_emb_CL_only"])


def test_golden_total(golden_run):
    """Its weights are for the consensus alone. It sums over 4 pairs and over 3 users, ours are means."""
    distiller, batch, case = golden_run
    model, weights = distiller.student, distiller.student.head_weights.clone()
    output = model(batch["user_ids"])
    model.head_weights.fill_(1)
    own = model.training_loss(output, batch["targets"], negatives=batch["negatives"])
    model.head_weights.copy_(weights)
    loss = 4 * own.mean() + 3 * distiller.methods["concf"](model, batch, output, {}).mean()
    near(loss, case["expected"]["total"])
    loss.backward()
    for name in ("user", "item"):  # the shares of repeated queries are in float32
        grad = model.get_submodule(f"{name}_embedding").weight.grad[1:]
        torch.testing.assert_close(grad, tensor(case["expected"][f"grad_{name}_emb_total"]), rtol=1e-7, atol=1e-11)


@pytest.fixture
def split():
    return set_split()


def test_the_consensus_of_a_run(split):
    """Snapshots in epochs 1, 2, ...; lists from epoch 2 on, of the newest two; items of training are never in them."""
    distiller = distiller_of(split)
    method, student = distiller.methods["concf"], distiller.student
    begin(distiller, split, 0)
    assert not method.rankings.any() and method.prepared == -1
    snapshots = []
    for number in (1, 2, 3):
        with torch.no_grad():
            student.user_embedding.weight[1:] += torch.randn(USERS, 8)
        begin(distiller, split, number)
        lists = []
        for head in HEADS:
            with student.answering(head):
                lists.append(best_items(student, dataset(split), 6))
        snapshots.append(torch.stack(lists))
        assert method.taught == (number >= 2) and method.prepared == number
        if number == 1:
            assert not method.lists.any()
            continue
        expected, _ = head_consensus(torch.stack(snapshots[-2:]), 6, method.config)
        assert torch.equal(method.lists[1:].long(), expected) and not method.lists[0].any()
    has = [set(row) for row in split.train["item_ids"]]
    assert all(not has[user] & set(row.tolist()) for user, row in enumerate(method.lists[1:]))
    begin(distiller, split, 3)  # again, as after a resume, with a later student
    assert torch.equal(method.rankings[:, :, 1:], torch.stack(snapshots[-2:]))


def test_users_of_many_queries_are_asked_for_all_they_have(split):
    positions = tiny_split()
    distiller = distiller_of(positions)
    begin(distiller, positions, 2)
    one = distiller.methods["concf"].lists.clone()
    whole = distiller_of(split)
    begin(whole, split, 2)
    assert torch.equal(one, whole.methods["concf"].lists)


def test_slow_loop(split):
    """All heads taught; users 1 (twice) and 4."""
    distiller = distiller_of(split, alpha=0.5).double().eval()
    method, student = distiller.methods["concf"], distiller.student
    student.head_weights.copy_(torch.tensor([1.0, 0.3, 2.5, 0.7, 0.5, 1.0]))
    begin(distiller, split, 2)
    pairs = [0, 1, 30]
    batch = batch_of(split, pairs, distiller)
    output = student(batch["user_ids"])
    got = method(student, batch, output, {})
    assert got.shape == (3,)
    costs = []
    for user in sorted(set(batch["user_ids"].tolist())):
        cost = 0.0
        for head, weight, scale in zip(HEADS, student.head_weights, (1, 10, 1, 1, 1, 1), strict=True):
            with student.answering(head):
                queries = student(torch.tensor([user])).query_embeddings
                scores = scale * student.score(queries, method.lists[user].long())[0].detach().numpy()
            cost += float(weight.clamp(0.5, 2)) * slow_relaxed_ranking(scores[:3], scores[3:])
        costs.append(0.5 * cost)
    assert got.mean().item() == pytest.approx(sum(costs) / len(costs), rel=1e-9)


def test_the_balance_against_second_derivatives(split, monkeypatch):
    """G and its slope by the weights, from a graph through `w`, with and without a weight beyond the clip."""
    distiller = distiller_of(split, alpha=0.3).double()
    method, student = distiller.methods["concf"], distiller.student
    student.head_weights.copy_(torch.tensor([1.0, 0.3, 2.5, 0.7, 0.6, 0.9]))
    begin(distiller, split, 2)
    batch = batch_of(split, [0, 1, 30, 60], distiller)
    told = {}
    monkeypatch.setattr(
        method.balance, "step", lambda w, losses, norms, slopes, settling: told.update(L=losses, G=norms, dG=slopes)
    )
    distiller(**batch)

    # the same losses, twice differentiable
    monkeypatch.setattr(concf_module, "relaxed_ranking_of", plain_ranking_of)
    monkeypatch.setattr(multi_head, "candidate_scores", lambda q, table, ids: (table[ids] * q[:, None]).sum(dim=2))
    monkeypatch.setattr(modeling_concf, "multinomial", clamped_multinomial)
    weights = student.head_weights.clone().requires_grad_()
    output = student(batch["user_ids"])
    consensus = torch.stack(method.consensus_losses(student, batch, output, first_of_each(batch["query_ids"]))).mean(
        dim=1
    )
    own = torch.stack(student.head_losses(output, batch["targets"], batch["negatives"]))
    objectives = weights * own + 0.3 * weights.clamp(0.5, 2.0) * consensus
    torch.testing.assert_close(told["L"], objectives.detach())
    for h in range(len(HEADS)):
        found = torch.autograd.grad(objectives[h], student.tables, create_graph=True, allow_unused=True)
        norm = sum(share * g.norm() for g, share in zip(found, (1.0, 0.5), strict=True) if g is not None)
        (slope,) = torch.autograd.grad(norm, weights, retain_graph=True)
        torch.testing.assert_close(told["G"][h], norm.detach())
        torch.testing.assert_close(told["dG"][h], slope[h])


def plain_ranking_of(scores, lists):
    taught = lists.interesting.shape[1]
    rest = torch.stack([scores[:, j:].logsumexp(dim=1) for j in range(taught)], dim=1)
    return (rest - scores[:, :taught]).sum(dim=1)


def test_the_balance_does_not_leak_into_the_model(split):
    """The gradient of a step is that of the weighted sum alone, and its weights are those before the balance."""
    gradients = []
    for balanced in (True, False):
        distiller = distiller_of(split, balanced=balanced)
        begin(distiller, split, 2)
        loss = distiller(**batch_of(split, [0, 1, 30, 60], distiller))["loss"]
        loss.backward()
        gradients.append([parameter.grad for parameter in distiller.parameters()])
        moved = (distiller.student.head_weights - 1).abs().max().item()
        assert moved > 1e-3 if balanced else moved == 0
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)


def test_evaluation_leaves_the_balance_alone(split):
    distiller = distiller_of(split).eval()
    begin(distiller, split, 0)
    distiller(**batch_of(split, [0, 30], distiller))
    assert torch.equal(distiller.student.head_weights, torch.ones(6)) and not distiller.methods["concf"].balance.steps


def test_untaught_heads_vote_but_learn_nothing(split):
    distiller = distiller_of(split, untaught=("item_multinomial", "metric"), balanced=False)
    begin(distiller, split, 2)
    student, method = distiller.student, distiller.methods["concf"]
    batch = batch_of(split, [0, 30], distiller)
    method(student, batch, student(batch["user_ids"]), {}).mean().backward()
    reached = {name.split(".")[1] for name, p in student.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached - {"weight"} == set(HEADS) - {"item_multinomial", "metric"}


def test_large_scores_are_finite(split):
    distiller = distiller_of(split, concf(split, initializer_range=1e3))
    begin(distiller, split, 2)
    terms = distiller(**batch_of(split, [0, 30], distiller))
    terms["loss"].backward()
    assert all(term.isfinite() for term in terms.values())
    assert all(p.grad.isfinite().all() for p in distiller.parameters() if p.grad is not None)
    assert distiller.student.head_weights.isfinite().all()


def test_no_pairs_no_harm(split):
    distiller = distiller_of(split)
    begin(distiller, split, 2)
    batch = batch_of(split, [0, 30], distiller)
    student = distiller.student
    empty = {name: tensor[:0] for name, tensor in batch.items()}
    assert distiller(**empty, num_queries=torch.tensor(1.0))["loss"] == 0
    assert distiller.methods["concf"](student, empty, student(empty["user_ids"]), {}).shape == (0,)
    assert torch.equal(student.head_weights, torch.ones(6))


def test_a_run_too_short_for_the_consensus_is_told_so(split, caplog):
    method = distiller_of(split, start=10).methods["concf"]
    for num_epochs, told in ((11, 0), (10, 1)):
        method.on_epoch_begin(Epoch(0, num_epochs, torch.Generator(), Positives(dataset(split)), nobody))
        assert caplog.text.count("from epoch 10 on, but this run has 10 epochs") == told


def test_an_epoch_must_have_begun(split):
    distiller = distiller_of(split)
    with pytest.raises(ConfigError, match="no epoch has begun"):
        distiller(**batch_of(split, [0, 30], distiller))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -1}, "alpha"),
        ({"window": 0}, "window"),
        ({"list_length": 5}, "shorter than top"),
        ({"consistency": "frozen"}, "consistency"),
        ({"balance_learning_rate": 0}, "balance_learning_rate"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        method_of(**settings)


def test_students_without_heads_are_refused(split):
    with pytest.raises(ConfigError, match="MFModel has one way of scoring"):
        distiller_of(split, mf(split))
    with pytest.raises(ConfigError, match="two heads or more"):
        distiller_of(split, concf(split, heads=["bpr"]))
    with pytest.raises(ConfigError, match="untaught names"):
        distiller_of(split, concf(split, heads=["bpr", "metric"]), untaught=("item_multinomial",))


def trained(split, folder, resume=None, **changes) -> DistillationTrainer:
    distiller = distiller_of(split, concf(split), alpha=0.1)
    settings = {"per_device_train_batch_size": 32, "num_train_epochs": 4, "tail_queries": False, **changes}
    trainer = DistillationTrainer(distiller, arguments(folder, **settings), dataset(split))
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_resume_is_bit_identical(split, tmp_path):
    """From the middle of the last epoch, with dropout, the weights and their Adam, the snapshots and the consensus."""
    straight = trained(split, tmp_path / "a")
    whole = trained(split, tmp_path / "b", save_strategy="steps", save_steps=1)
    last = whole.state.global_step
    for step in range(last - 1, last + 1):
        shutil.rmtree(tmp_path / "b" / f"checkpoint-{step}")
    resumed = trained(split, tmp_path / "b", resume=True)
    one, other = (t.model.state_dict() for t in (straight, resumed))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert one["methods.concf.lists"].any() and one["methods.concf.filled"] == 2
    assert not torch.equal(one["student.head_weights"], torch.ones(6))
    logged = straight.state.log_history[-2]
    assert {f"concf/{head}" for head in HEADS} < logged.keys() and logged["loss_concf"] > 0


def test_the_best_head_is_kept(split, tmp_path):
    student = trained(split, tmp_path).model.student.eval()
    rows = dataset(split)
    valid = type(rows)(split.valid, ITEMS, split.users)
    found = head_metrics(student, valid, ks=(5,))
    assert list(found) == list(HEADS) and len({told["ndcg@5"] for told in found.values()}) > 1
    head = best_head(student, valid, metric="ndcg@5")
    assert found[head]["ndcg@5"] == max(told["ndcg@5"] for told in found.values())
    kept = student.keep_head(head)
    assert head_metrics(kept, valid, ks=(5,)) == {head: found[head]}
    assert torch.equal(kept.head_weights, torch.ones(1)) and kept.config.head == head
    with pytest.raises(ConfigError, match="metric must be"):
        best_head(student, valid, metric="hits@5")


def test_the_ensemble_of_heads(split):
    student = concf(split).eval()
    lists = []
    for head in HEADS:
        with student.answering(head):
            lists.append(best_items(student, dataset(split), 5))
    config = HeadConsensusConfig(top=5, consistency="none")
    by_default = consensus_topk(student, dataset(split), 4, HeadConsensusConfig(top=5))
    assert torch.equal(by_default, consensus_topk(student, dataset(split), 4, config)), "one snapshot: no rank wanders"
    topk = consensus_topk(student, dataset(split), 4, config)
    assert topk.dtype == torch.int32
    assert torch.equal(topk.long(), head_consensus(torch.stack(lists)[None], 4, config)[0])


def test_without_consensus_nothing_is_asked(split):
    distiller = distiller_of(split, alpha=0.0)
    rows = dataset(split)
    distiller.methods["concf"].on_epoch_begin(Epoch(2, 10, torch.Generator(), Positives(rows), nobody))
    terms = distiller(**batch_of(split, [0, 30], distiller))
    assert terms["concf"] == 0 and not torch.equal(distiller.student.head_weights, torch.ones(6))

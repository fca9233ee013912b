from __future__ import annotations

import json
from math import exp, log

import pytest
import torch

from seqkd.batches.pairs import TrainingPairs
from seqkd.batches.positives import Positives
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, KnowledgeError
from seqkd.functional.catalogue_log_sum_exp import log_sum_exp_without
from seqkd.method import Epoch
from seqkd.methods.hetcomp import HetComp, HetCompConfig, full_ranking, overall
from seqkd.models.mf import MFConfig, MFModel
from seqkd.trainer import DistillationTrainer

from ..tiny import ITEMS, USERS, arguments, nobody
from .tiny_rankings import batch_of, dataset, mf, near, rankings, tensor
from .tiny_trajectories import HAS, SPLIT, moment, trajectories

SMALL = {"top": 4, "observed": 2, "depth": 4, "interval": 1}
RELEASES = {"rank_final_repo": "final", "rank_submission": "submission"}


def distiller_of(knowledge=None, student=None, **config) -> Distiller:
    method = HetComp(HetCompConfig(**{**SMALL, **config}))
    return Distiller(student or mf(SPLIT), {"hetcomp": method}, {}, knowledge or trajectories(), label_weight=0.0)


def begin(distiller: Distiller, number: int = 0, student_topk=nobody) -> HetComp:
    generator, method = torch.Generator(), distiller.methods["hetcomp"]
    method.on_epoch_begin(Epoch(number, 10, generator, Positives(dataset(SPLIT)), student_topk))
    return method


def distiller_began(**config) -> Distiller:
    distiller = distiller_of(**config)
    begin(distiller)
    return distiller


def losses_of(distiller: Distiller, batch):
    output = distiller.student(user_ids=batch["user_ids"])
    return distiller.methods["hetcomp"](distiller.student, batch, output, distiller._knowledge_of(batch))


# ---- the losses -----------------------------------------------------------------------------------------------


def losses_from(scores, observed, top, train, release):
    """The loss of each row from the scores of all items; ids count from 1."""
    best = None
    if release == "final":
        top, best = top[:, : top.shape[1] // 2], top.shape[1] // 10
    items = torch.cat([torch.zeros(1, scores.shape[1]), torch.eye(scores.shape[1])]).to(scores)
    rest = log_sum_exp_without(scores, items, torch.cat([top, train], dim=1))
    ours, theirs = (scores.gather(1, (part - 1).clamp(min=0)) for part in (observed, top))
    arguments = ours, theirs, rest, observed == 0, top == 0
    return full_ranking(*arguments, best=best) if release else overall(*arguments)


def slow(scores, observed, top, train, release):
    """Word for word, of one row; `scores[item]`."""

    def above(listed, excluded):
        rest = [exp(s) for item, s in scores.items() if item not in train and item not in excluded]
        return -sum(
            log(exp(scores[x]) / (sum(exp(scores[y]) for y in listed[k:]) + sum(rest))) for k, x in enumerate(listed)
        )

    if release == "final":
        half, best = top[: len(top) // 2], top[: len(top) // 10]
        return above(observed, half) + (above(half, half) + above(best, best)) / 2
    if release == "submission":
        return above(observed, top) + above(top, top)
    return sum(above([x], top) for x in (*observed, *top))


@pytest.fixture(scope="module")
def case(golden):
    """The golden ids count from 0, ours from 1; users have six items each."""
    (case,) = json.loads((golden / "hetcomp_losses.json").read_text())["cases"]
    lists = [torch.tensor(case["inputs"][name]) + 1 for name in ("pos_items", "top_items")]
    train = [[item + 1 for item, has in enumerate(row) if has] for row in case["inputs"]["train_mask"]]
    return case["inputs"], case["expected"], (*lists, torch.tensor(train))


@pytest.mark.parametrize("name", ["overall", *RELEASES])
def test_golden(case, name):
    inputs, expected, lists = case
    scores = tensor(inputs["scores_moderate"]).requires_grad_()
    losses = losses_from(scores, *lists, RELEASES.get(name))
    near(losses.sum(), expected[f"{name}_moderate"])
    losses.sum().backward()
    near(scores.grad, expected[f"grad_{name}_moderate"])
    for row, *ids, ours in zip(inputs["scores_moderate"], *(part.tolist() for part in lists), losses, strict=True):
        assert ours.item() == pytest.approx(slow(dict(enumerate(row, 1)), *ids, RELEASES.get(name)), rel=1e-9)


@pytest.mark.parametrize("name", ["overall", *RELEASES])
def test_golden_large(case, name):
    """The authors clamp scores, here too, and denominators after a subtraction, at 1e-5: hence the tolerance."""
    inputs, expected, lists = case
    scores = tensor(inputs["scores_large"]).requires_grad_()
    losses = losses_from(scores.clamp(*inputs["clamp"]), *lists, RELEASES.get(name))
    assert losses.sum().item() == pytest.approx(expected[f"{name}_large"], abs=1e-3)
    losses.sum().backward()
    torch.testing.assert_close(scores.grad, tensor(expected[f"grad_{name}_large"]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name, release", [("overall", None), ("rank", "final")])
def test_golden_through_embeddings(case, name, release):
    inputs, expected, lists = case
    users, items = (tensor(inputs[table]).requires_grad_() for table in ("user_emb", "item_emb"))
    losses = losses_from(users[torch.tensor(inputs["batch_users"])] @ items.T, *lists, release)
    near(losses.sum(), expected[f"get_KD_loss_{name}"])
    losses.sum().backward()
    near(users.grad, expected[f"grad_user_emb_{name}"])
    near(items.grad, expected[f"grad_item_emb_{name}"])


@pytest.mark.parametrize("release", [None, "final", "submission"])
def test_large_scores_and_empty_places_stay_finite(release):
    scores = (torch.randn(2, 40) * 1e3).requires_grad_()
    observed, top = torch.tensor([[1, 2], [3, 0]]), torch.tensor([[*range(5, 25)], [*range(5, 9)] + [0] * 16])
    losses = losses_from(scores, observed, top, torch.tensor([[1, 2], [3, 0]]), release)
    losses.sum().backward()
    assert losses.isfinite().all() and scores.grad.isfinite().all() and losses.max() > 100
    again = losses_from(scores[1:], observed[1:, :1], top[1:], torch.tensor([[3]]), release)
    assert again.item() == pytest.approx(losses[1].item(), rel=1e-6)


@pytest.mark.parametrize("transfer, release", [("overall", "final"), ("ranking", "final"), ("ranking", "submission")])
def test_the_whole_method(transfer, release):
    """A query that is asked twice, users with an item more or less, and the student's temperature."""
    knowledge = trajectories()
    distiller = distiller_of(knowledge, mf(SPLIT, temperature=0.5), top=10, transfer=transfer, release=release)
    begin(distiller)
    batch = batch_of(SPLIT, [0, 1, 30, 60], distiller)
    student, costs = distiller.student, []
    for query in sorted(set(batch["query_ids"].tolist())):
        ours = 2 * (student.item_embedding.weight @ student.user_embedding.weight[query + 1])
        scores = {item: ours[item].item() for item in range(1, ITEMS + 1)}

        def consensus(names, table, k, query=query):
            total: dict[int, float] = {}
            for name in names:
                for rank, item in enumerate(knowledge[name].table(table)[query].tolist()):
                    total[item] = total.get(item, 0) + (item > 0) * exp(-rank / 10)
            return sorted(filter(None, total), key=lambda item: (-total[item], item))[:k]

        top = consensus(["t0@0", "t1@0"], "query_topk", 10)  # where everyone begins
        observed = consensus(["t0@2", "t1@2"], "query_seen_topk", 2)
        padded = (top + [0] * 10)[:10]
        filled = [x for x in padded[:5] if x], [x for x in padded[:1] if x]
        assert len(top) >= 6 and len(filled[0]) == 5
        padded_top = top if release == "submission" or transfer == "overall" else (filled[0] + [0] * 5)
        cost = slow(scores, observed, padded_top, HAS[query], release if transfer == "ranking" else None)
        costs.append(cost * (0.5 if transfer == "ranking" else 1))
    losses = losses_of(distiller, batch)
    assert losses.shape == (4,) and losses.mean().item() == pytest.approx(sum(costs) / len(costs), rel=1e-5)


def test_gradient_reaches_all_items_but_those_that_are_had_and_not_listed():
    distiller = distiller_of()
    method = begin(distiller)
    batch = batch_of(SPLIT, [0], distiller)
    losses_of(distiller, batch).sum().backward()
    moved = set(distiller.student.item_embedding.weight.grad.abs().sum(1).nonzero().flatten().tolist())
    query = int(batch["query_ids"][0])
    listed = set(method.lists.observed[query].tolist())
    assert listed <= HAS[query] and len(listed) == 2 < len(HAS[query])
    assert moved == {*range(1, ITEMS + 1)} - (HAS[query] - listed)
    assert distiller.student.user_embedding.weight.grad.any(dim=1).nonzero().flatten().tolist() == [query + 1]


def test_some_queries_stand_for_all():
    distiller, whole = distiller_began(max_queries=1), distiller_began()
    batch = batch_of(SPLIT, [0, 1, 30, 60], distiller)  # three users
    drawn = {round(losses_of(distiller, batch).mean().item(), 4) for _ in range(40)}
    assert len(drawn) == 3 and sum(drawn) / 3 == pytest.approx(losses_of(whole, batch).mean().item(), abs=1e-3)
    assert torch.equal(losses_of(distiller_began(max_queries=3), batch), losses_of(whole, batch))


# ---- the curriculum -------------------------------------------------------------------------------------------


def test_phases():
    converged = {f"{name}@0": moment(10 * t + 2) for t, name in enumerate(("one", "two"))}
    alone = begin(distiller_of(converged, curriculum=False))
    assert alone.ranking and alone.lists.selection.tolist() == [[0] * USERS] * 2
    plain = {name.split("@")[0]: said for name, said in converged.items()}
    assert torch.equal(begin(distiller_of(plain, curriculum=False)).lists.top, alone.lists.top)
    last = begin(distiller_of(curriculum=False, transfer="overall"))
    assert not last.ranking and (last.lists.selection == 2).all()
    assert begin(distiller_of(transfer="ranking")).ranking


def trained(folder, resume=None, epochs=6, **changes) -> DistillationTrainer:
    student = mf(SPLIT)
    trainer = DistillationTrainer(
        distiller_of(student=student),
        arguments(folder, num_train_epochs=epochs, per_device_train_batch_size=32, tail_queries=False, **changes),
        dataset(SPLIT),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def test_resume_is_bit_identical(tmp_path):
    """From the middle of an epoch that began with an update, while queries are at several checkpoints."""
    straight = trained(tmp_path / "a")
    steps = straight.state.global_step // 6
    middle = 4 * steps + steps // 2
    whole = trained(tmp_path / "b", save_strategy="steps", save_steps=middle)
    resumed = trained(tmp_path / "b", resume=str(tmp_path / "b" / f"checkpoint-{middle}"))
    assert 4 * steps < middle < 5 * steps and resumed.state.global_step == whole.state.global_step
    lists = [trainer.model.methods["hetcomp"].lists for trainer in (straight, whole, resumed)]
    assert lists[0].selection.unique().tolist() == [0, 1, 2] and int(lists[0].updated) == 5
    for other, trainer in zip(lists[1:], (whole, resumed), strict=True):
        for name in ("selection", "reference", "updated", "top", "observed"):
            assert torch.equal(getattr(other, name), getattr(lists[0], name)), name
        one, two = straight.model.student.state_dict(), trainer.model.student.state_dict()
        assert all(torch.equal(one[name], two[name]) for name in one)
    shares = [entry["hetcomp/progress"] for entry in straight.state.log_history if "hetcomp/progress" in entry]
    assert shares[0] == 0 < shares[-1] < 1


def test_the_student_learns_the_order_of_its_teachers():
    torch.manual_seed(0)
    student = MFModel(MFConfig(num_items=ITEMS, num_users=USERS, hidden_size=16))
    student.set_catalogue(SPLIT.catalogue)
    student.set_users(SPLIT.users)
    distiller = distiller_of(student=student, curriculum=False, release="submission")
    method, optimizer = begin(distiller), torch.optim.Adam(student.parameters(), lr=0.05)
    batch = batch_of(SPLIT, [*range(len(TrainingPairs(dataset(SPLIT))))], distiller)
    for _ in range(80):
        optimizer.zero_grad()
        losses_of(distiller, batch).mean().backward()
        optimizer.step()
    scores = student.score(student.user_embeddings(torch.arange(1, USERS + 1)))
    had = Positives(dataset(SPLIT)).of_users(torch.arange(1, USERS + 1)[:, None], torch.arange(ITEMS + 1))
    best = scores.masked_fill(had, -torch.inf).topk(4, dim=1).indices
    assert (best == method.lists.top).float().mean() > 0.9


# ---- errors ---------------------------------------------------------------------------------------------------


def test_kind_errors():
    with pytest.raises(KnowledgeError, match=r"'r@0' exported .* but \['query_seen_topk'\] is needed"):
        distiller_of({"r@0": rankings(SPLIT), "r@1": rankings(SPLIT, 1)})
    distiller = distiller_of()
    with pytest.raises(ConfigError, match="no lists are merged"):
        losses_of(distiller, batch_of(SPLIT, [0], distiller))


@pytest.mark.parametrize(
    "wrong", [{"top": 0}, {"transfer": "none"}, {"max_queries": 0}, {"max_items": 0}, {"rank_weight": 0.0}]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        HetCompConfig(**wrong)

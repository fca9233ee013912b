from __future__ import annotations

import json
import shutil
from math import exp, log

import pytest
import torch

from seqkd.batches.positives import Positives
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, KnowledgeError
from seqkd.knowledge import Knowledge
from seqkd.knowledge.export import export
from seqkd.knowledge.interview import best_items
from seqkd.method import Epoch
from seqkd.methods.replay import Replay, ReplayConfig, annealed
from seqkd.models.mf import MFConfig, MFModel
from seqkd.teaching.rehearsal import Rehearsal
from seqkd.trainer import DistillationTrainer

from ..tiny import ITEMS, USERS, arguments, nobody, tiny_sasrec
from .tiny_rankings import batch_of, dataset, mf, of_others, rankings, set_split, tensor

SPLIT = set_split()
ROWS = dataset(SPLIT)
CONFIG = {"draws": 3, "list_length": 6}


def distiller_of(student=None, proxies=2, rows=ROWS, knowledge=None, **config):
    knowledge = knowledge or {f"proxy{seed}": rankings(SPLIT, seed) for seed in range(proxies)}
    method = Replay(ReplayConfig(**{**CONFIG, **config}), rows)
    return Distiller(student or mf(SPLIT), {"replay": method}, {}, knowledge)


def begin(distiller, number=0, num_steps=1, student_topk=nobody):
    generator = torch.Generator().manual_seed(number)
    distiller.methods["replay"].on_epoch_begin(Epoch(number, 10, generator, Positives(ROWS), student_topk, num_steps))
    return distiller.methods["replay"]


def loss_of(distiller, pairs=(0, 1, 30), progress=0.0):
    batch = {**batch_of(SPLIT, [*pairs], distiller), "progress": torch.tensor(progress)}
    output = distiller.student(user_ids=batch["user_ids"])
    return distiller.methods["replay"](distiller.student, batch, output, distiller._knowledge_of(batch))


def slow(scores, pairs):
    """Sum of the pairs of one row and how many they are, from all the scores of its query."""
    total, count = 0.0, 0
    for item, label in zip(pairs.items.tolist(), pairs.labels.tolist(), strict=True):
        if item:
            p = 1 / (1 + exp(-scores[item]))
            total, count = total - label * log(p) - (1 - label) * log(1 - p), count + 1
    return total, count


@pytest.mark.parametrize("column, decay", [("student_T10", 10.0), ("teacher_T5", 5.0)])
def test_golden_annealing(golden, column, decay):
    """The 0.5 of the golden values is the distiller's weight."""
    case = json.loads((golden / "ccd_annealing.json").read_text())
    assert [0.5 * annealed(epoch, decay) for epoch in case["epoch"]] == pytest.approx(case[column], rel=3e-7)  # float32
    assert annealed(30, None) == 1.0


@pytest.mark.parametrize("number", [0, 1, 5, 10])
def test_golden_loss(golden, number):
    """The golden loss is a sum over 18 pairs in float32, ours their mean; its ids count from 0, ours from 1."""
    case = json.loads((golden / "ccd_replay.json").read_text())
    student = MFModel(MFConfig(num_users=USERS, num_items=ITEMS, hidden_size=4)).double()
    student.set_catalogue(SPLIT.catalogue)
    student.set_users(SPLIT.users)
    with torch.no_grad():
        student.user_embedding.weight[1:6] = tensor(case["user_emb"])
        student.item_embedding.weight[1:13] = tensor(case["item_emb"])
    method = begin(distiller_of(student, decay=10.0))
    pairs = method.pairs
    pairs.items.zero_()
    for user, item, label in case["merged_dataset_u_i_label"]:
        place = int((pairs.items[user] > 0).sum())
        pairs.items[user, place], pairs.labels[user, place] = item + 1, label
    pairs.made.fill_(number // 5)  # as a resumed run finds them
    generator = torch.Generator()
    method.on_epoch_begin(Epoch(number, 10, generator, Positives(ROWS), nobody))
    loss = 0.5 * 18 * method(student, {"progress": torch.tensor(0.0)}, None, {})
    expected = case["loss_by_epoch_student_schedule"][f"epoch_{number}"]
    assert loss.dim() == 0 and loss.item() == pytest.approx(expected["loss"], rel=1e-6)
    loss.backward()
    assert student.user_embedding.weight.grad.norm().item() == pytest.approx(expected["grad_user_l2"], rel=1e-6)
    assert student.item_embedding.weight.grad.norm().item() == pytest.approx(expected["grad_item_l2"], rel=1e-6)


@pytest.mark.parametrize("kind", ["mf", "cosine", "sasrec"])
def test_rows_are_rehearsed_by_the_models_own_logits(kind):
    """Every pair of every row counts, and all alike; a temperature is part of the logits."""
    student = {
        "mf": lambda: mf(SPLIT),
        "cosine": lambda: mf(SPLIT, similarity="cosine", temperature=0.2),
        "sasrec": lambda: tiny_sasrec(SPLIT),
    }[kind]().eval()
    distiller = distiller_of(student, decay=10.0)
    method = begin(distiller, number=3)
    totals = []
    for row in range(USERS):
        if kind == "sasrec":
            batch = student.collator(tail=True)([ROWS[row]])
            query = student(**{name: batch[name] for name in student.inputs}).query_embeddings
        else:
            query = student.user_embeddings(torch.tensor([row + 1]))
        scores = student.score(query)[0].tolist()
        pairs = method.pairs.of(torch.tensor([row]))
        totals.append(slow(scores, type(pairs)(*(column[0] for column in pairs))))
    total, count = (sum(column) for column in zip(*totals, strict=True))
    assert count > 4 * USERS
    loss = method(student, {"progress": torch.tensor(0.3)}, None, {})
    assert loss.item() == pytest.approx(exp(-0.3) * total / count, rel=1e-5)


def test_the_steps_of_an_epoch_rehearse_it_once():
    """The mean over the steps of an epoch is the mean over its pairs, whatever the micro-batch holds."""
    distiller = distiller_of(decay=None)
    begin(distiller)
    whole = loss_of(distiller)
    begin(distiller, num_steps=6)
    parts = [loss_of(distiller, pairs=[step], progress=step / 60) for step in range(6)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)
    torch.testing.assert_close(loss_of(distiller, [40, 3], 2 / 60), parts[2], rtol=0, atol=0)


@pytest.mark.parametrize("rows", [ROWS, None])
def test_without_rows_training_queries_are_rehearsed(rows):
    """And that is the same where they are the same: every training query of an epoch, once or several times."""
    distiller = distiller_of(rows=rows)
    begin(distiller, student_topk=lambda k: best_items(distiller.student, ROWS, k))
    pairs = distiller.methods["replay"].pairs
    losses = loss_of(distiller, range(sum(map(len, SPLIT.train["item_ids"]))))
    scores = distiller.student.score(distiller.student.user_embeddings(torch.arange(1, USERS + 1))).tolist()
    sums = [slow(scores[row], type(pairs.of(0))(*(c for c in pairs.of(row)))) for row in range(USERS)]
    total, count = (sum(column) for column in zip(*sums, strict=True))
    assert losses.mean().item() == pytest.approx(total / count, rel=1e-5)


def test_what_the_student_ranks_low_is_replayed(golden):
    """With a sharp epsilon the draws are the items of the list that the student ranks lowest, by its own scores."""
    distiller = distiller_of(proxies=1, epsilon=50.0)
    method, student = begin(distiller), distiller.student
    scores = student.score(student.user_embeddings(torch.arange(1, USERS + 1)))
    for row in range(USERS):
        listed = distiller.knowledge["proxy0"].table("query_topk")[row].tolist()
        ranks = {item: int((scores[row] > scores[row, item]).sum()) for item in listed}
        gaps = sorted(((ranks[item] - place, item) for place, item in enumerate(listed)), reverse=True)
        drawn = {*method.pairs.items[row].tolist()}
        worst = [gap for gap, item in gaps if item in drawn]
        assert len(drawn) == 3 and worst == [gap for gap, _ in gaps[:3]]


def test_finite_at_large_scores():
    student = mf(SPLIT)
    with torch.no_grad():
        student.user_embedding.weight.mul_(1e3)
    distiller = distiller_of(student)
    begin(distiller)
    loss = loss_of(distiller)
    loss.backward()
    assert loss.isfinite() and loss > 50 and student.item_embedding.weight.grad.isfinite().all()


def test_gradient_reaches_the_rows_of_the_step_and_their_pairs():
    distiller = distiller_of()
    method = begin(distiller, num_steps=8)
    loss_of(distiller, progress=2 / 80).backward()
    rows = method.rehearsal.window(torch.tensor(2 / 80))
    users, items = distiller.student.user_embedding.weight.grad, distiller.student.item_embedding.weight.grad
    assert users.any(dim=1).nonzero().squeeze(1).tolist() == sorted((rows + 1).tolist())
    assert {*items.any(dim=1).nonzero().squeeze(1).tolist()} == {*method.pairs.of(rows).items.flatten().tolist()} - {0}


def run(folder, student, rows, resume=None, **changes):
    knowledge = {f"proxy{seed}": rankings(SPLIT, seed) for seed in range(2)}
    distiller = distiller_of(student, rows=rows, knowledge=knowledge, redraw=2, **changes.pop("config", {}))
    settings = {"num_train_epochs": 3, "per_device_train_batch_size": 32, "tail_queries": True, **changes}
    trainer = DistillationTrainer(distiller, arguments(folder, **settings), ROWS)
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.mark.parametrize("reference", ["student", "start"])
@pytest.mark.parametrize("kind", ["mf", "sasrec"])
def test_resume_is_bit_identical(kind, reference, tmp_path):
    """From every step on, with the draws of the second period and the windows of old rows."""
    student = (lambda: mf(SPLIT)) if kind == "mf" else (lambda: tiny_sasrec(SPLIT))
    changes = {"config": {"reference": reference}}
    if kind == "sasrec":
        changes["per_device_train_batch_size"] = 8
    straight = run(tmp_path / "a", student(), ROWS, save_strategy="steps", save_steps=1, **changes)
    last = straight.state.global_step
    for kept in (last - 1, last * 2 // 3, 2):
        for step in range(kept + 1, last + 1):
            shutil.rmtree(tmp_path / "a" / f"checkpoint-{step}", ignore_errors=True)
        resumed = run(tmp_path / "a", student(), ROWS, resume=True, **changes)
        one, other = straight.model.state_dict(), resumed.model.state_dict()
        assert resumed.state.global_step == last >= 9
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("rows", [ROWS, None])
def test_accumulation_gives_the_same_student(rows, tmp_path):
    one = run(tmp_path / "one", mf(SPLIT), rows)
    changes = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4}
    four = run(tmp_path / "four", mf(SPLIT), rows, **changes)
    assert torch.equal(one.model.methods["replay"].pairs.items, four.model.methods["replay"].pairs.items)
    for a, b in zip(one.model.student.parameters(), four.model.student.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_a_run_goes_through_all_rows_in_every_epoch(tmp_path, monkeypatch):
    asked = []
    ask = Rehearsal.ask
    monkeypatch.setattr(Rehearsal, "ask", lambda self, rows: asked.append(rows.tolist()) or ask(self, rows))
    run(tmp_path, mf(SPLIT), ROWS, config={"reference": "start"})
    ranked, steps = 1, len(asked) // 3  # all rows are ranked at once before
    assert len(asked) == ranked + 3 * steps and steps > 3
    for number in range(3):
        rows = [row for window in asked[ranked:][number * steps :][:steps] for row in window]
        assert len(rows) == steps * -(-USERS // steps) and sorted(rows[:USERS]) == [*range(USERS)]


def test_replay_keeps_a_student_near_its_proxy(tmp_path):
    """Trained by replay alone, a student comes to score a proxy's best items as the proxy does."""
    teacher, student = mf(SPLIT, seed=1, initializer_range=2.0), mf(SPLIT)
    knowledge = {"proxy": export(teacher, SPLIT.train, split=SPLIT, part="train", tables=("query_topk",), k=6,
                                 filter_seen=True)}  # fmt: skip
    method = Replay(ReplayConfig(draws=6, list_length=6, decay=None), ROWS)
    said = knowledge["proxy"]
    items, labels = said.table("query_topk").long(), said.table("query_scores").sigmoid()

    def gap():
        with torch.no_grad():
            scores = student.score(student.user_embeddings(torch.arange(1, USERS + 1)), items)
        return (scores.sigmoid() - labels).abs().mean().item()

    before = gap()
    distiller = Distiller(student, {"replay": method}, {}, knowledge, label_weight=0.0)
    settings = {"num_train_epochs": 20, "per_device_train_batch_size": 16, "learning_rate": 0.05}
    DistillationTrainer(distiller, arguments(tmp_path, **settings), ROWS).train()
    assert gap() < 0.2 * before


def test_only_its_own_buffers_are_saved():
    """The student it asks and the rows are no part of it."""
    distiller = distiller_of(reference="start")
    assert {*distiller.methods.state_dict()} == {
        f"replay.pairs.{name}" for name in ("items", "labels", "start", "made")
    }
    assert not [*distiller.methods.parameters()]


def test_errors():
    with pytest.raises(ConfigError, match="decay"):
        ReplayConfig(decay=0.0)
    with pytest.raises(ConfigError, match="draws names"):
        distiller_of(draws={"proxy": 3})
    with pytest.raises(KnowledgeError, match=r"24 queries are to be rehearsed, but .*30"):
        distiller_of(knowledge={"one": of_others(rankings(SPLIT), 30)})
    uneven = {"one": rankings(SPLIT), "two": of_others(rankings(SPLIT), 30)}
    with pytest.raises(KnowledgeError, match="the proxies answer"):
        distiller_of(rows=None, knowledge=uneven)
    with pytest.raises(KnowledgeError, match="asks 24"):
        begin(distiller_of(rows=None, knowledge={"one": of_others(rankings(SPLIT), 30)}))
    with pytest.raises(ConfigError, match="no pairs are drawn yet"):
        loss_of(distiller_of(rows=None))
    said = rankings(SPLIT)
    bare = {"query_topk": said.table("query_topk")}
    with pytest.raises(KnowledgeError, match="query_scores"):
        distiller_of(knowledge={"one": Knowledge.from_tables(bare, source=said.source, catalogue=said.catalogue)})

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from seqkd.batches.collators import UNLABELLED
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, KnowledgeError
from seqkd.knowledge.export import export
from seqkd.method import Method, SoftLabels
from seqkd.methods.ckd_mdsr import CKDMDSR, CKDMDSRConfig

from .tiny import parts, tiny_distiller, tiny_sasrec, tiny_split


@dataclass(frozen=True)
class Nothing:
    """A configuration without fields."""


class Lists(Method):
    """Soft labels that are known beforehand: what a method answers, without a paper behind it."""

    config_class = Nothing
    paper: ClassVar[str] = "none"

    def __init__(self, items, probs):
        super().__init__()
        self.items, self.probs = items, probs

    def forward(self, student, batch, output, knowledge):
        return SoftLabels(self.items, self.probs)


class Squares(Method):
    """A loss of its own: the squared length of each query embedding, scaled by a learnt number; or their mean."""

    config_class = Nothing
    paper: ClassVar[str] = "none"

    def __init__(self, scalar=False):
        super().__init__()
        self.scale, self.scalar = nn.Parameter(torch.tensor(2.0)), scalar

    def forward(self, student, batch, output, knowledge):
        loss = self.scale * output.query_embeddings.square().sum(dim=1)
        return loss.mean() if self.scalar else loss


def still(split, **config):
    """A student without dropout: two forwards give the same."""
    return tiny_sasrec(split, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **config)


@pytest.fixture
def split():
    return tiny_split()


@pytest.fixture
def batch(split):
    """Six rows with their tails: 6 of the queries have no label."""
    made = still(split).collator(tail=True)([parts(split)[0][row] for row in range(6)])
    assert int((made["targets"] == UNLABELLED).sum()) == 6 and len(made["targets"]) > 12
    return made


def lists_for(batch, seed, width=4, padding=True):
    torch.manual_seed(seed)
    queries = len(batch["targets"])
    items = torch.stack([torch.randperm(20)[:width] + 1 for _ in range(queries)])
    if padding:
        items[:, -1] = 0  # a list that is shorter than the others
    return items, torch.rand(queries, width)


def slow_terms(student, batch, lists):
    """Each loss for itself, one query and one item at a time, from the whole score matrix."""
    log_probs = student.score(student(**{name: batch[name] for name in student.inputs}).query_embeddings)
    log_probs = log_probs[:, 1:].log_softmax(dim=1)
    labelled = [q for q, target in enumerate(batch["targets"].tolist()) if target != UNLABELLED]
    label = -sum(log_probs[q, batch["targets"][q] - 1] for q in labelled) / len(labelled)
    soft = []
    for items, probs in lists:
        total = 0.0
        for q, row in enumerate(items.tolist()):
            for column, item in enumerate(row):
                if item:
                    total = total - probs[q, column] * log_probs[q, item - 1]
        soft.append(total / len(items))
    return label, soft


def test_hard_and_soft_labels_in_one_pass_are_the_losses_computed_one_by_one(split, batch):
    one, two = lists_for(batch, 1), lists_for(batch, 2, width=6)
    student = still(split)
    distiller = Distiller(student, {"one": Lists(*one), "two": Lists(*two)}, {"one": 0.5, "two": 3.0}, label_weight=0.2)
    out = distiller(**batch)
    label, (first, second) = slow_terms(student, batch, [one, two])
    torch.testing.assert_close(out["label"], label)
    torch.testing.assert_close(out["one"], first)
    torch.testing.assert_close(out["two"], second)
    torch.testing.assert_close(out["loss"], 0.2 * label + 0.5 * first + 3.0 * second)

    out["loss"].backward()
    fast = {name: weight.grad.clone() for name, weight in student.named_parameters()}
    student.zero_grad()
    label, (first, second) = slow_terms(student, batch, [one, two])
    (0.2 * label + 0.5 * first + 3.0 * second).backward()
    for name, weight in student.named_parameters():
        torch.testing.assert_close(fast[name], weight.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_one_pass_over_the_catalogue_however_many_methods(split, batch, monkeypatch):
    student, calls = still(split), []
    whole = student.catalogue_log_probs
    monkeypatch.setattr(student, "catalogue_log_probs", lambda *given: calls.append(given[1].shape[1]) or whole(*given))
    Distiller(student, {"one": Lists(*lists_for(batch, 1)), "two": Lists(*lists_for(batch, 2))})(**batch)
    assert calls == [1 + 4 + 4]


def test_without_methods_it_is_the_students_own_loss(split, batch):
    student = still(split)
    labelled = batch["targets"] != UNLABELLED
    queries = student(**{name: batch[name] for name in student.inputs}).query_embeddings
    out = Distiller(student)(**batch)
    expected = student.loss(queries[labelled], batch["targets"][labelled]).mean()
    torch.testing.assert_close(out["loss"], expected)
    assert set(out) == {"loss", "label"} and not out["label"].requires_grad


@pytest.mark.parametrize("loss_type", ["sampled_softmax", "bce", "gbce", "bpr"])
def test_losses_that_are_no_soft_labels_are_means_over_labelled_queries(split, batch, loss_type):
    student = still(split, loss_type=loss_type, num_negatives=5)
    items, probs = lists_for(batch, 1)
    torch.manual_seed(7)
    out = Distiller(student, {"kd": Lists(items, probs)}, {"kd": 0.5})(**batch)
    labelled = batch["targets"] != UNLABELLED
    queries = student(**{name: batch[name] for name in student.inputs}).query_embeddings
    torch.manual_seed(7)
    expected = student.loss(queries[labelled], batch["targets"][labelled]).mean()
    torch.testing.assert_close(out["label"], expected)
    _, (soft,) = slow_terms(student, batch, [(items, probs)])
    torch.testing.assert_close(out["loss"], expected + 0.5 * soft)


@pytest.mark.parametrize("scalar", [True, False])
def test_a_method_with_a_loss_of_its_own_is_a_mean_over_all_queries(split, batch, scalar):
    student, method = still(split), Squares(scalar)
    out = Distiller(student, {"squares": method}, {"squares": 0.1})(**batch)
    queries = student(**{name: batch[name] for name in student.inputs}).query_embeddings
    expected = 2.0 * queries.square().sum() / len(queries)
    torch.testing.assert_close(out["squares"], expected)
    torch.testing.assert_close(out["loss"], out["label"] + 0.1 * expected)
    out["loss"].backward()
    torch.testing.assert_close(method.scale.grad, 0.1 * expected / 2.0)  # what a method learns is trained too


class Telling(Squares):
    """Tells the id of each query, which depends on no other query of the batch."""

    def forward(self, student, batch, output, knowledge):
        self.statistics = {"teacher/id": batch["query_ids"].float()}
        return super().forward(student, batch, output, knowledge)


@pytest.mark.parametrize("loss_type", ["softmax", "bpr"])
def test_labels_without_weight_are_not_computed(split, batch, loss_type, monkeypatch):
    student = tiny_sasrec(split, loss_type=loss_type)
    methods = {"squares": Squares(scalar=False)}
    whole = Distiller(student, methods, label_weight=1.0)(**batch)
    monkeypatch.setattr(type(student), "training_loss", None)  # nobody calls it
    monkeypatch.setattr(type(student), "catalogue_log_probs", None)
    terms = Distiller(student, methods, label_weight=0.0)(**batch)
    assert set(whole) - set(terms) == {"label"}
    assert torch.equal(terms["loss"], whole["squares"])


def test_nothing_to_learn_is_refused(split):
    with pytest.raises(ConfigError, match="no method is given, and label_weight is 0"):
        Distiller(tiny_sasrec(split), label_weight=0.0)


def test_statistics_are_means_over_the_step_and_no_part_of_the_loss(split, batch):
    student = still(split)
    out = Distiller(student, {"telling": Telling()})(**batch)
    assert set(out) == {"loss", "label", "telling", "telling/teacher/id"}
    torch.testing.assert_close(out["telling/teacher/id"], batch["query_ids"].float().mean())
    torch.testing.assert_close(out["loss"], out["label"] + out["telling"])
    step = {"num_queries": torch.tensor(4.0 * len(batch["targets"]))}  # this batch is a quarter of the step
    quarter = Distiller(student, {"telling": Telling()})(**batch, **step)
    torch.testing.assert_close(4 * quarter["telling/teacher/id"], out["telling/teacher/id"])


def test_parts_of_a_step_add_up_to_the_whole(split):
    """Rows with and without labels, in two micro-batches that know the size of the step."""
    student = still(split)
    collate, rows = student.collator(tail=True), [parts(split)[0][row] for row in range(6)]
    whole = collate(rows)
    pieces = [collate(rows[:2]), collate(rows[2:])]
    step = {
        "num_labelled": (whole["targets"] != UNLABELLED).sum().float(),
        "num_queries": torch.tensor(float(len(whole["targets"]))),
    }

    def out(batch, **more):
        return Distiller(student, {"squares": Squares()})(**batch, **more)

    for term in ("loss", "label", "squares"):
        torch.testing.assert_close(sum(out(piece, **step)[term] for piece in pieces), out(whole)[term])


def test_a_batch_without_labels_teaches_without_them(split, batch):
    items, probs = lists_for(batch, 1)
    blank = {**batch, "targets": torch.full_like(batch["targets"], UNLABELLED)}
    student = still(split)
    out = Distiller(student, {"kd": Lists(items, probs)})(**blank)
    _, (soft,) = slow_terms(student, batch, [(items, probs)])
    assert out["label"] == 0
    torch.testing.assert_close(out["loss"], soft)


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_a_weight_that_names_no_method_is_refused(split):
    with pytest.raises(ConfigError, match=r"weights name \['ckd_mrds'\], but the methods are \['squares'\]"):
        Distiller(still(split), {"squares": Squares()}, {"ckd_mrds": 0.5})


def test_a_method_is_not_called_like_a_statistic(split):
    with pytest.raises(ConfigError, match=r"name holds no '/'.*'kd/squares'"):
        Distiller(still(split), {"kd/squares": Squares()})


def test_a_method_that_reads_teachers_needs_one(split):
    method = CKDMDSR(CKDMDSRConfig(curriculum=None))
    with pytest.raises(KnowledgeError, match=r"ckd_mdsr.*item_embeddings.*query_embeddings.*no teacher"):
        Distiller(still(split), {"ckd_mdsr": method})


def test_a_missing_table_names_the_mend(split):
    teacher = tiny_sasrec(split, 1)
    knowledge = export(teacher, split.train, split=split, part="train", tables=("query_topk",), k=5)
    method = CKDMDSR(CKDMDSRConfig(curriculum=None))
    with pytest.raises(KnowledgeError) as refused:
        Distiller(still(split), {"ckd_mdsr": method}, knowledge={"wide": knowledge})
    for part in (
        "teacher 'wide' exported ['query_scores', 'query_topk']",
        "['item_embeddings', 'query_embeddings'] is needed",
        "tables=('item_embeddings', 'query_embeddings')",
    ):
        assert part in str(refused.value)


def test_knowledge_of_another_catalogue_is_refused(split):
    knowledge = tiny_distiller(split).knowledge
    other = still(split)
    other.set_catalogue(type(split.catalogue)(f"other{i}" for i in range(1, 21)))
    with pytest.raises(KnowledgeError, match="item1"):
        Distiller(other, {"ckd_mdsr": CKDMDSR(CKDMDSRConfig(curriculum=None))}, knowledge=knowledge)


# ---- what methods are given -----------------------------------------------------------------------------------------


def test_every_teachers_rows_reach_the_batch_and_whole_item_tables_the_method(split, batch):
    distiller = tiny_distiller(split, curriculum=None)
    looked_up = distiller.look_up(dict(batch))
    given = distiller._knowledge_of(looked_up)
    for teacher, knowledge in distiller.knowledge.items():
        expected = torch.stack([knowledge.table("query_embeddings")[query] for query in batch["query_ids"].tolist()])
        assert torch.equal(looked_up[f"{teacher}/query_embeddings"], expected)
        assert torch.equal(given[teacher]["query_embeddings"], expected)
        assert torch.equal(given[teacher]["item_embeddings"], knowledge.table("item_embeddings"))
    assert not torch.equal(looked_up["one/query_embeddings"], looked_up["two/query_embeddings"])


def test_knowledge_that_no_method_reads_is_not_looked_up(split, batch):
    taught = tiny_distiller(split, curriculum=None)
    alone = Distiller(still(split), knowledge=taught.knowledge)
    assert set(alone.look_up(dict(batch))) == set(batch)


def test_only_the_student_and_what_methods_learn_is_trained(split):
    distiller = Distiller(still(split), {"squares": Squares()})
    names = {name for name, _ in distiller.named_parameters()}
    assert names == {f"student.{name}" for name, _ in still(split).named_parameters()} | {"methods.squares.scale"}

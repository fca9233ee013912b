from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from seqkd import pipeline
from seqkd.batches.pairs import TrainingPairs
from seqkd.config import ModelConfig, TeacherConfig
from seqkd.errors import KnowledgeError
from seqkd.evaluation.ranks import rank_targets
from seqkd.pipeline import KINDS
from tests.pipeline.small import NARROW, WIDE, untrained, with_teacher


def run(experiment, books):
    teachers = {name: pipeline.train_teacher(experiment, books, name, 0) for name in experiment.teachers}
    method, knowledge = pipeline.teach(experiment, books, teachers)
    return teachers, knowledge, pipeline.distil(experiment, books, 0, method, knowledge, teachers).student


@pytest.mark.parametrize("candidates", ["catalogue", "in_batch"])
def test_a_mini_run_from_teachers_to_a_student(experiment, books, candidates):
    two = {"wide": TeacherConfig(model=WIDE), "deep": TeacherConfig(model={**WIDE, "num_hidden_layers": 2})}
    method, distilled_model = {"candidates": candidates}, {"hidden_dropout_prob": 0.1}
    experiment = replace(experiment, teachers=two, method=method, distilled_model=distilled_model)
    teachers, knowledge, student = run(experiment, books)
    assert set(knowledge) == set(teachers) == {"wide", "deep"}
    alone = pipeline.train_alone(experiment, books, 0)
    assert student.num_parameters() == alone.num_parameters()
    assert not torch.equal(student.item_embeddings(), alone.item_embeddings())
    assert (student.config.hidden_dropout_prob, alone.config.hidden_dropout_prob) == (0.1, 0.5)
    ranks = rank_targets(student, books.part("test"))
    assert len(ranks.ranks) == 60 and 0 <= ranks.metrics()["ndcg@10"] <= 1
    if candidates == "catalogue":  # one list for both, and every label stands in it
        assert torch.equal(knowledge["wide"].table("query_topk"), knowledge["deep"].table("query_topk"))
        assert knowledge["wide"].table("query_topk").shape[1] == 8
        for items, first, start, _ in books.part("train"):
            for position in range(first, len(items)):
                assert items[position] in knowledge["wide"].table("query_topk")[start + position - first]


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("mf", {"candidates": "catalogue"}),
        ("mf", {"mask_history": False}),
        ("lightgcn", {"candidates": "catalogue"}),
        ("lightgcn", {"mask_history": False}),
        ("fm", {"candidates": "catalogue"}),
        ("fm", {}),
        ("deepfm", {"candidates": "list"}),
        ("deepfm", {}),
    ],
)
def test_students_that_know_users_are_taught_too(experiment, kind, method):
    """From settings to ranks, by a teacher that knows no users."""
    deep = {"mlp_hidden_sizes": [8]} if kind == "deepfm" else {}
    experiment = replace(experiment, method=method, student=ModelConfig(type=kind, model={"hidden_size": 8, **deep}))
    books = pipeline.prepare(experiment)["books"]
    _, knowledge, student = run(experiment, books)
    assert type(student) is KINDS[kind].model and student.users == books.split.users
    alone = pipeline.train_alone(experiment, books, 0)
    assert not torch.equal(student.item_embeddings(), alone.item_embeddings())
    ranks = rank_targets(student, books.part("test"))
    assert len(ranks.ranks) == 60 and 0 <= ranks.metrics()["ndcg@10"] <= 1
    asked = TrainingPairs(books.part("train")).query_ids
    assert knowledge["wide"].num_queries > asked.max()  # one row of knowledge for each query that a pair asks


def test_a_graph_holds_training_alone(experiment):
    """The items that validate and test are no neighbours of their users."""
    experiment = replace(experiment, student=ModelConfig(type="lightgcn", model={"hidden_size": 8}))
    books = pipeline.load_domains(experiment)["books"]
    edges = set(map(tuple, pipeline.new_model(books.split, experiment.student, "x", 0).edges.T.tolist()))
    have = {(row.user, int(item)) for row in books.part("train") for item in row.item_ids}
    assert edges == have
    assert any((row.user, int(row.item_ids[-1])) not in have for row in books.part("test"))


@pytest.mark.parametrize("settings", [{"folds": 2}, {"members": 2}])
def test_a_mini_run_with_folds_or_members(experiment, books, settings):
    teachers, knowledge, student = run(with_teacher(experiment, **settings), books)
    assert len(teachers["wide"]) == 2 and set(knowledge) == {"wide"}
    assert torch.isfinite(student.item_embeddings()).all()


def test_equal_settings_give_equal_students(experiment, books):
    one, two = (pipeline.train_alone(experiment, books, 1).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_distilled_student_starts_from_its_teachers_items(books):
    student = pipeline.new_model(books.split, ModelConfig(model=NARROW), "x", 0)
    (teacher,) = untrained(books, 3)
    pipeline.start_from_teachers(student, {"wide": [teacher]}, books)
    table = student.item_embeddings().detach()
    assert not table[0].any() and float(table[1:].std()) == pytest.approx(0.05, rel=1e-4)
    # inner products are those of the centred teacher items, as far as 8 components carry them
    items = torch.nn.functional.normalize(teacher.item_embeddings().detach()[1:], dim=1)
    items = items - items.mean(dim=0)
    left, scale, right = torch.linalg.svd(items, full_matrices=False)
    near = (left[:, :8] * scale[:8]) @ right[:8]
    ours = table[1:] @ table[1:].T
    factor = ours.trace() / (near @ near.T).trace()
    torch.testing.assert_close(ours, factor * near @ near.T, atol=1e-5, rtol=1e-3)


def test_knowledge_of_another_split_is_refused(experiment, books):
    method, knowledge = pipeline.teach(experiment, books, {"wide": untrained(books, 0)})
    fewer = replace(books, split=replace(books.split, train=books.split.train.select(range(50))))
    with pytest.raises(KnowledgeError, match="split"):
        pipeline.distil(experiment, fewer, 0, method, knowledge, {"wide": untrained(books, 0)})

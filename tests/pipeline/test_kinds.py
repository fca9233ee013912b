from __future__ import annotations

import pytest
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from seqkd.config import KNOW_USERS, STUDENTS, TEACHERS, ImageConfig, TextConfig
from seqkd.errors import ConfigError, NoContentError
from seqkd.pipeline import KINDS, Domain
from seqkd.pipeline.kinds import Reading, tokens_for
from seqkd.recommenders.user_recommender import UserRecommender

OF_STREAMS = {"cml", "neumf", "multvae", "itemae"}  # teachers and students of a stream alone


def test_every_type_of_the_settings_is_a_kind():
    assert {*STUDENTS, *TEACHERS, *OF_STREAMS} == set(KINDS)
    know_users = {name for name, kind in KINDS.items() if issubclass(kind.model, UserRecommender)}
    assert {*KNOW_USERS, *OF_STREAMS} == know_users


def shop(name, **columns):
    return Domain(name, None, Dataset.from_dict({"item_id": ["a", "b"], **columns}))


@pytest.fixture
def reading(tmp_path, monkeypatch):
    """With a tokenizer that knows no word, and a cache in a folder of its own."""
    monkeypatch.setattr("seqkd.pipeline.kinds.CACHE", tmp_path / "cache")
    words = Tokenizer(models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(tmp_path / "words")
    return Reading(TextConfig(encoder=str(tmp_path / "words"), fields=("title",)), ImageConfig())


def test_a_tokenizer_that_is_not_there_is_told_by_its_setting(tmp_path):
    reading = Reading(TextConfig(encoder=str(tmp_path / "nowhere")), ImageConfig())
    with pytest.raises(ConfigError, match=r"^text.encoder: there is no tokenizer in '.*nowhere'"):
        tokens_for(shop("texts", title=["red", "blue"]), reading, {})


def test_items_without_a_text_are_no_tokens(reading):
    """As for UniSRec: all would be read as the same empty sequence."""
    texts = shop("texts", title=["red", ""])
    assert (tokens_for(texts, reading, {}).lengths > 0).tolist() == [True, False], "one without is read as empty"
    bare, other = shop("bare", title=["", " "]), shop("other", title=["", ""], brand=["red", "blue"])
    with pytest.raises(NoContentError, match=r"bare: no item has a text, but a teacher reads texts. There are none in"):
        tokens_for(bare, reading, {})
    with pytest.raises(NoContentError, match=r"other: no item .* text.fields is \['title'\], .* in \['brand'\]"):
        tokens_for(other, reading, {})
    both = Domain("both", None, Dataset.from_dict({}), (texts, texts))
    assert (tokens_for(both, reading, {}).lengths > 0).tolist() == [True, False] * 2
    with pytest.raises(NoContentError, match="bare: no item has a text"):
        tokens_for(Domain("both", None, Dataset.from_dict({}), (texts, bare, texts)), reading, {})

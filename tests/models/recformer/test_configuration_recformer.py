"""What a RecformerConfig refuses, and what it tells transformers' encoder."""

from __future__ import annotations

import pytest

from seqkd.models.recformer import RecformerConfig


def test_the_defaults_are_longformer_base_with_a_window_of_64():
    config = RecformerConfig()
    inner = config.longformer_config()
    assert (inner.hidden_size, inner.num_hidden_layers, inner.attention_window) == (768, 12, [64] * 12)
    assert (inner.max_position_embeddings, inner.type_vocab_size, inner.layer_norm_eps) == (4098, 4, 1e-5)
    assert config.item_length == 96 and RecformerConfig(max_item_length=10).item_length == 10
    assert RecformerConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 5}, "multiple"),
        ({"similarity": "dot"}, "cosine"),
        ({"attention_window": 7}, "even"),
        ({"attention_window": [64, 64]}, "12 layers"),
        ({"max_item_embeddings": 50}, "max_position_embeddings"),
        ({"max_token_num": 4097}, "at most 4096"),
        ({"token_type_size": 3}, "token_type_size"),
        ({"pooler_type": "max"}, "pooler_type"),
        ({"bos_token_id": 50265}, "bos_token_id"),
        ({"pad_token_id": None}, "pad_token_id"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob"),
        ({"max_attr_num": 0}, "max_attr_num"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(Exception, match=message):
        RecformerConfig(**changes)

"""A Recformer that was a text encoder a moment ago still gives the same hidden states."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    LongformerConfig,
    LongformerModel,
    RobertaConfig,
    RobertaModel,
)

from seqkd.errors import ConfigError
from seqkd.models.recformer import ItemTokens, RecformerModel, dense_attention

SHAPE = {"vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 12}
OURS = {"bos_token_id": 2, "mask_token_id": 3, "max_item_length": 5, "max_token_num": 24, "max_attr_length": 8}
KINDS = {
    "bert": (BertModel, BertConfig(**SHAPE, max_position_embeddings=24, pad_token_id=0)),
    "roberta": (RobertaModel, RobertaConfig(**SHAPE, max_position_embeddings=26, pad_token_id=1)),
    "longformer": (
        LongformerModel,
        LongformerConfig(**SHAPE, max_position_embeddings=26, pad_token_id=1, type_vocab_size=1, attention_window=64),
    ),
}


@pytest.fixture(params=KINDS)
def source(request, tmp_path):
    torch.manual_seed(0)
    kind, config = KINDS[request.param]
    model = kind(config)
    for parameter in model.parameters():  # biases and norms too
        torch.nn.init.normal_(parameter, std=0.3)
    model.eval().save_pretrained(tmp_path)
    return model


def tokens(count: int) -> ItemTokens:
    ids = (torch.arange(count * 5).reshape(count, 5) * 7 % 25 + 4).int().numpy()
    lengths = torch.arange(count).int().numpy() % 5 + 1
    return ItemTokens(ids, (ids % 2 + 1), lengths, ids)


@pytest.mark.parametrize("longest", [0, 512], ids=["windows", "dense"])
@torch.no_grad()
def test_hidden_states_are_those_of_the_source(source, tmp_path, longest, monkeypatch):
    monkeypatch.setattr(dense_attention, "LONGEST", longest)
    model = RecformerModel.from_text_encoder(tmp_path, num_items=6, **OURS)
    model.set_item_features(tokens(6))
    histories = torch.tensor([[6, 5, 4, 3, 2], [1, 0, 0, 0, 0], [5, 2, 0, 0, 0]])
    for _, batch in model.batches(histories):
        mask = batch.attention_mask
        extra = {}
        if isinstance(source, LongformerModel):
            extra["global_attention_mask"] = torch.zeros_like(mask, dtype=torch.long).index_fill_(
                1, torch.tensor([0]), 1
            )
        ids = batch.input_ids.masked_fill(~mask, source.config.pad_token_id)
        expected = source(input_ids=ids, attention_mask=mask.long(), **extra).last_hidden_state
        torch.testing.assert_close(model._encode_tokens(batch)[mask], expected[mask], atol=1e-5, rtol=1e-4)


def test_layers_and_positions(source, tmp_path):
    model = RecformerModel.from_text_encoder(tmp_path, num_hidden_layers=2, **{**OURS, "max_token_num": 60})
    assert len(model.encoder.layer) == 2
    pad = source.config.pad_token_id
    rows = model.embeddings.position_embeddings.weight[pad + 1 :]
    theirs = source.embeddings.position_embeddings.weight[0 if pad == 0 else pad + 1 :]
    assert len(theirs) == 24 and len(rows) == 60
    assert torch.equal(rows[:24], theirs) and torch.equal(rows[24:48], theirs) and torch.equal(rows[48:], theirs[:12])
    assert not model.embeddings.item_position_embeddings.weight.any()
    assert not model.embeddings.word_embeddings.weight.requires_grad


def test_what_does_not_fit_is_refused(tmp_path):
    KINDS["bert"][0](KINDS["bert"][1]).save_pretrained(tmp_path / "bert")
    with pytest.raises(ConfigError, match=r"1\.\.3"):
        RecformerModel.from_text_encoder(tmp_path / "bert", num_hidden_layers=4, **OURS)
    with pytest.raises(ConfigError, match="hidden_size is 8"):
        RecformerModel.from_text_encoder(tmp_path / "bert", hidden_size=16, **OURS)
    other = DistilBertConfig(vocab_size=30, dim=8, n_layers=1, n_heads=2, hidden_dim=8)
    DistilBertModel(other).save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigError, match="distilbert"):
        RecformerModel.from_text_encoder(tmp_path / "other", **OURS)

"""Recformer as a recommender: queries, item vectors and when they are made, new items, domains, files, training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.models.recformer.tiny_recformer import SIZES, tiny_recformer, tokens_of
from tests.tiny import ITEMS, arguments, parts, tiny_split
from transformers import AutoModel

from seqkd.batches.collators import QueryCollator, SequenceDataset
from seqkd.catalogue import Catalogue
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, DataError
from seqkd.evaluation.ranks import rank_targets
from seqkd.knowledge.export import export
from seqkd.models.recformer import ItemTokens, RecformerConfig, RecformerModel, dense_attention, token_batch
from seqkd.trainer import DistillationTrainer

HISTORIES = torch.tensor([[3, 2, 1, 0, 0, 0], [4, 0, 0, 0, 0, 0], [5, 6, 7, 8, 9, 10]])


def make(**changes) -> RecformerModel:
    model = tiny_recformer(RecformerModel, tiny_split(), **changes)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@torch.no_grad()
def test_queries_do_not_depend_on_their_batch(monkeypatch):
    model = make()
    together = model(HISTORIES).query_embeddings
    alone = torch.cat(
        [model(history[None, :n]).query_embeddings for history, n in zip(HISTORIES, (3, 1, 6), strict=True)]
    )
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    monkeypatch.setattr(token_batch, "SMALLEST", 1)
    assert [rows.tolist() for rows in token_batch.chunks(torch.tensor([13, 5, 25]), 8, 64)] == [[2], [0], [1]]
    torch.testing.assert_close(model(HISTORIES).query_embeddings, together)


@pytest.mark.parametrize("pooler", ["cls", "mean"])
@torch.no_grad()
def test_plain_and_windowed_attention_agree(pooler, monkeypatch):
    model = make(attention_window=4, pooler_type=pooler, num_hidden_layers=2)
    plain = model(HISTORIES).query_embeddings
    monkeypatch.setattr(dense_attention, "LONGEST", 0)
    torch.testing.assert_close(model(HISTORIES).query_embeddings, plain, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_newest_items_and_tokens_count():
    model = make()
    full, longer = HISTORIES[2:], torch.cat([HISTORIES[2:], torch.tensor([[11, 12]])], dim=1)
    torch.testing.assert_close(model(longer).query_embeddings, model(full).query_embeddings)  # six items are read
    short = make(max_token_num=9)  # <s> and two items
    torch.testing.assert_close(short(full).query_embeddings, short(full[:, :2]).query_embeddings)
    assert not torch.allclose(model(full).query_embeddings, model(full.flip(1)).query_embeddings, atol=1e-3)


@torch.no_grad()
def test_mean_pooling_leaves_padding_out():
    model = make(pooler_type="mean")
    ((_, batch),) = list(model.batches(HISTORIES[1:2]))
    expected = F.normalize(model._encode_tokens(batch)[0, :5].mean(dim=0), dim=0)
    torch.testing.assert_close(model(HISTORIES).query_embeddings[1], expected)


@pytest.mark.parametrize("longest", [0, 512], ids=["windows", "dense"])
def test_half_precision_is_close(longest, monkeypatch):
    monkeypatch.setattr(dense_attention, "LONGEST", longest)
    model = make().train()
    exact = model(HISTORIES).query_embeddings
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(HISTORIES).query_embeddings
    rough.sum().backward()
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.05, rtol=0.05)
    rough = model.to(torch.bfloat16)(HISTORIES).query_embeddings
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=0.1)


def test_item_vectors_stand_still_until_items_are_encoded():
    model = make()
    assert not model.item_vectors.any()  # nothing was asked yet
    with torch.no_grad():
        expected = model(torch.arange(1, ITEMS + 1)[:, None]).query_embeddings
    first = model.item_embeddings().clone()
    torch.testing.assert_close(first[1:], expected)
    assert not first.requires_grad and not first[0].any()
    torch.testing.assert_close(model.item_embeddings(torch.tensor([[3, 0]])), first[[3, 0]][None])
    model.train()
    model.encoder.layer[0].output.dense.weight.data.add_(torch.randn(8, 8))
    assert torch.equal(model.item_embeddings(), first)
    model.encode_items()
    assert model.training and not torch.allclose(model.item_embeddings(), first)
    model.set_item_features(tokens_of(ITEMS).take(np.arange(ITEMS)[::-1].copy()))
    with torch.no_grad():
        assert not torch.allclose(model.eval().item_embeddings()[1], first[1])  # never those of other texts


def test_an_item_without_text_is_the_start_token_alone():
    model, tokens = make(), tokens_of(ITEMS)
    tokens.lengths[[2, 4]] = 0
    model.set_item_features(tokens)
    vectors = model.item_embeddings()
    torch.testing.assert_close(vectors[3], vectors[5])
    torch.testing.assert_close(vectors.norm(dim=1)[1:], torch.ones(ITEMS))
    with torch.no_grad():  # in a history it takes a place, but no tokens
        assert model(torch.tensor([[3, 1]])).query_embeddings.isfinite().all()


def test_save_and_load(tmp_path):
    model = make(fix_word_embedding=True)
    recommended = model.recommend([["item1", "item2"]], 5)
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert isinstance(again, RecformerModel) and again.item_ids == model.item_ids
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())
    assert not again.embeddings.word_embeddings.weight.requires_grad
    assert again.recommend([["item1", "item2"]], 5).item_ids == recommended.item_ids
    assert again.item_input_ids.dtype == torch.int32 and again.item_token_types.dtype == torch.int8


def test_new_items_leave_old_rows_alone():
    model = make()
    before = model.item_embeddings().clone()
    model.add_items(["new", "newer"], features=tokens_of(ITEMS).take([4, 6]))
    assert model.config.num_items == ITEMS + 2 and len(model.item_counts) == ITEMS + 3
    assert torch.equal(model.item_embeddings()[: ITEMS + 1], before)
    torch.testing.assert_close(model.item_embeddings()[ITEMS + 1 :], before[[5, 7]])
    assert {"new", "newer"} <= set(model.recommend([["item1"]], ITEMS + 1).item_ids[0])
    with pytest.raises(DataError, match="features="):
        model.add_items(["third"])
    with pytest.raises(DataError, match="already"):
        model.add_items(["new"], features=tokens_of(1))
    with pytest.raises(ConfigError, match="embeddings"):
        model.add_items(["third"], torch.zeros(1, 8), features=tokens_of(1))
    assert len(model.item_vectors) == len(model.item_lengths) == ITEMS + 3


def test_for_domain_shares_all_but_the_items():
    model = make(loss_type="sampled_softmax")
    model.encode_items()
    other = model.for_domain(Catalogue("xyz"), tokens_of(3), torch.tensor([0.0, 1, 2, 3]), temperature=0.1)
    assert other.config.num_items == 3 and other.config.temperature == 0.1 and model.config.num_items == ITEMS
    assert other.config.loss_type == "softmax" and other.item_counts.tolist() == [0, 1, 2, 3]
    theirs = dict(model.named_parameters())
    assert all(
        torch.equal(value, theirs[name]) and value is not theirs[name] for name, value in other.named_parameters()
    )
    torch.testing.assert_close(other.item_embeddings(), model.item_embeddings()[:4])  # the same texts
    with pytest.raises(ConfigError, match="poolertype"):
        model.for_domain(Catalogue("xyz"), tokens_of(3), poolertype="mean")


def test_wrong_tokens_are_refused():
    model = RecformerModel(RecformerConfig(num_items=3, **SIZES))
    with pytest.raises(ConfigError, match="set_item_features"):
        model.item_embeddings()
    with pytest.raises(DataError, match="3 items, but tokens of 4"):
        model.set_item_features(tokens_of(4))
    wide = np.full((3, 5), 3, np.int32)
    with pytest.raises(DataError, match=r"5 tokens.*keeps 4"):
        model.set_item_features(ItemTokens(wide, wide, np.array([1, 5, 2]), wide))
    with pytest.raises(DataError, match=r"up to 24.*has 24"):
        model.set_item_features(tokens_of(3)._replace(input_ids=np.full((3, 4), 24)))
    assert not model.item_lengths.any()


def test_words_are_frozen_unless_asked():
    assert not RecformerModel(
        RecformerConfig(**SIZES | {"fix_word_embedding": True})
    ).embeddings.word_embeddings.weight.requires_grad
    assert RecformerModel(RecformerConfig(**SIZES)).train().embeddings.word_embeddings.weight.requires_grad


@pytest.mark.parametrize("loss_type", ["softmax", "sampled_softmax"])
def test_it_trains_evaluates_and_teaches(tmp_path, loss_type):
    split = tiny_split()
    model = tiny_recformer(RecformerModel, split, loss_type=loss_type, num_negatives=10)
    train, valid = parts(split)
    settings = arguments(tmp_path, num_train_epochs=8, learning_rate=3e-3, load_best_model_at_end=False)
    trainer = DistillationTrainer(Distiller(model), settings, train, valid)
    vectors = model.item_embeddings().clone()
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert np.isfinite(losses).all()
    if loss_type == "softmax":  # with negatives drawn anew in each step, eight epochs are noise
        assert np.mean(losses[-6:]) < np.mean(losses[:6])
    assert torch.equal(model.item_vectors, vectors)
    ranks = rank_targets(model, valid, history="unmasked", depth=10)
    assert len(ranks.ranks) == len(valid) and (ranks.history_lengths == [len(r.item_ids) - 1 for r in valid]).all()
    knowledge = export(model, split.train, split=split, part="train", k=5)
    assert knowledge.counts.get("unasked", 0) == export_unasked(split)


def export_unasked(split) -> int:
    """Queries before the first item, which nobody asks."""
    rows = SequenceDataset(split.train, ITEMS)
    asked = QueryCollator(50, tail=True)(list(rows))["query_ids"]
    return rows.num_queries - len(asked)

"""Recformer against the authors' code: the golden vectors of `recformer_tiny`, on both paths of attention."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tests.models.recformer.tiny_recformer import golden_config, golden_model
from transformers import RobertaTokenizer

from seqkd.evaluation.metrics import ranks_from_scores
from seqkd.models.recformer import RecformerConfig, RecformerModel, RecformerProcessor, dense_attention
from seqkd.models.recformer.token_batch import TokenBatch

CLOSE = {"atol": 1e-5, "rtol": 1e-4}
HISTORIES = torch.tensor([[6, 5, 4, 3, 2, 1], [5, 3, 0, 0, 0, 0], [1, 2, 6, 0, 0, 0]])  # newest first
READ = ("input_ids", "token_type_ids", "item_position_ids", "attention_mask")


@pytest.fixture
def vectors(golden):
    return json.loads((golden / "recformer_tiny.json").read_text(encoding="utf-8"))


@pytest.fixture(params=[0, 512], ids=["windows", "dense"])
def model(request, golden, vectors, monkeypatch):
    monkeypatch.setattr(dense_attention, "LONGEST", request.param)
    return golden_model(RecformerModel, golden, vectors)


def batch_of(told: dict) -> TokenBatch:
    parts = [torch.tensor(told[name]) for name in READ]
    return TokenBatch(*parts[:3], parts[3].bool(), torch.zeros_like(parts[0]))


def test_items_are_encoded_as_by_the_authors(golden, vectors):
    tokenizer = RobertaTokenizer.from_pretrained(golden / "recformer_tiny_tokenizer")
    processor = RecformerProcessor(tokenizer, 3, 7, fields=("title", "brand", "category", "extra"))
    processor.check(golden_config(golden))
    tokens = processor.encode_items([vectors["inputs"]["items"][str(i)] for i in range(6)])
    for i, expected in vectors["inputs"]["encoded_items {id: [input_ids, token_type_ids]}"].items():
        length = tokens.lengths[int(i)]
        assert [tokens.input_ids[int(i), :length].tolist(), tokens.token_type_ids[int(i), :length].tolist()] == expected
        assert not tokens.input_ids[int(i), length:].any() and (tokens.word_ids[int(i), length:] == -1).all()


def test_batches_are_those_of_the_authors(model, vectors):
    for histories, name in ((HISTORIES, "batch"), (torch.arange(1, 7)[:, None], "item_batch")):
        expected = {key: torch.tensor(vectors["inputs"][name][key]) for key in READ}
        seen = []
        for rows, batch in model.batches(histories):
            width = batch.input_ids.shape[1]
            for key in READ:
                assert torch.equal(getattr(batch, key).long(), expected[key][rows, :width]), key
            assert not expected["attention_mask"][rows, width:].any()
            seen += rows.tolist()
        assert sorted(seen) == list(range(len(histories)))


def test_weights_load_strictly(golden):
    theirs = load_file(golden / "recformer_tiny.safetensors")
    names = {n.removeprefix("longformer.") for n in theirs if not n.startswith("lm_head.") and "position_ids" not in n}
    assert names == {name for name, _ in RecformerModel(golden_config(golden)).named_parameters()}
    manifest = json.loads((golden / "recformer_state_dict_manifest.json").read_text(encoding="utf-8"))["manifests"]
    with torch.device("meta"):
        full = RecformerModel(RecformerConfig())  # the defaults are the authors'
    shapes = {name: list(tensor.shape) for name, tensor in full.named_parameters()}
    theirs = manifest["RecformerModel (bare)"]
    assert shapes == {name: shape for name, shape, _ in theirs if not name.endswith("position_ids")}


@torch.no_grad()
def test_embeddings_and_hidden_states(model, vectors):
    batch = batch_of(vectors["inputs"]["batch"])
    for name, states in (
        ("embeddings_out", model.embeddings(batch)),
        ("last_hidden_state", model._encode_tokens(batch)),
    ):
        expected = torch.tensor(vectors["expected"][name])
        torch.testing.assert_close(states[batch.attention_mask], expected[batch.attention_mask], **CLOSE)


def test_queries_and_items(model, vectors):
    expected = vectors["expected"]
    for histories, name in ((HISTORIES, "pooler_output"), (torch.arange(1, 7)[:, None], "item_pooler_output")):
        unit = F.normalize(torch.tensor(expected[name]), dim=-1)
        torch.testing.assert_close(model.encode_histories(histories).detach(), unit, **CLOSE)
    torch.testing.assert_close(
        model.item_embeddings()[1:], F.normalize(torch.tensor(expected["item_pooler_output"]), dim=-1), **CLOSE
    )


@torch.no_grad()
def test_scores_losses_and_ranks(model, vectors):
    expected, labels = vectors["expected"], torch.tensor(vectors["inputs"]["labels"]) + 1
    queries = model(HISTORIES).query_embeddings
    scores = model.score(queries)
    torch.testing.assert_close(
        scores[:, 1:], torch.tensor(expected["seqrec_scores(cos/temp over all items)"]), atol=1e-4, rtol=1e-4
    )
    full = model.loss(queries, labels).mean().item()
    assert full == pytest.approx(expected["seqrec_full_softmax_loss"], abs=1e-4)
    candidates = torch.tensor(vectors["inputs"]["sampled_candidates"]) + 1  # the target first
    sampled = F.cross_entropy(model.score(queries, candidates), torch.zeros(3, dtype=torch.long)).item()
    assert sampled == pytest.approx(expected["seqrec_sampled_softmax_loss"], abs=1e-4)
    ranks = ranks_from_scores(scores, labels, ties="against")
    _, _, ndcg3, hit3, mrr, *_ = expected["ranker(ks=[1,3]) [ndcg1,hr1,ndcg3,hr3,mrr,auc,loss]"]
    gains = torch.where(ranks < 3, 1 / (ranks + 2).double().log2(), 0.0)
    assert gains.mean().item() == pytest.approx(ndcg3) and (ranks < 3).double().mean().item() == pytest.approx(hit3)
    assert (1 / (ranks + 1)).mean().item() == pytest.approx(mrr)

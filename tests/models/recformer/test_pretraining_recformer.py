"""Pre-training against the authors' numbers, and the same step carried in several ways."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.models.recformer.tiny_recformer import SIZES, golden_model, tiny_recformer, tokens_of
from tests.tiny import ITEMS, arguments, parts, tiny_split
from transformers import BertConfig, BertForMaskedLM, BertModel

from seqkd.batches.collators import Sequence
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError
from seqkd.models.recformer import EncodeItems, RecformerConfig, RecformerForPretraining, RecformerModel
from seqkd.models.recformer.token_batch import TokenBatch
from seqkd.trainer import DistillationTrainer

CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def vectors(golden):
    return json.loads((golden / "recformer_tiny.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def authors(golden, vectors):
    return golden_model(RecformerForPretraining, golden, vectors)


def histories_of(vectors) -> torch.Tensor:
    """Newest first, our ids: theirs plus 1."""
    rows = [[item + 1 for item in reversed(row)] for row in vectors["inputs"]["sequences(past->present)"]]
    return torch.tensor([row + [0] * (6 - len(row)) for row in rows])


def batch_of(vectors, name: str, masked: str) -> TokenBatch:
    batch = {key: torch.tensor(value) for key, value in vectors["inputs"][name].items()}
    return TokenBatch(
        torch.tensor(vectors["inputs"][masked]),
        batch["token_type_ids"],
        batch["item_position_ids"],
        batch["attention_mask"].bool(),
        torch.full_like(batch["token_type_ids"], -1),
    )


# ---- the authors' numbers -------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_contrast_is_the_authors(authors, vectors):
    targets = torch.tensor(vectors["inputs"]["targets_b"]) + 1
    queries = authors(histories_of(vectors)).query_embeddings
    logits = queries @ authors.encode_histories(targets[:, None]).T / authors.config.temperature
    expected = vectors["expected"]
    torch.testing.assert_close(logits, torch.tensor(expected["cl_logits(cos/temp)"]), **CLOSE)
    correct = (logits.argmax(dim=1) == torch.arange(3)).sum()
    assert correct == expected["cl_correct_num"]
    loss = authors.loss(queries, targets)
    assert loss.shape == (3,) and loss.mean().item() == pytest.approx(expected["cl_loss_only"], rel=1e-4)


@torch.no_grad()
def test_the_language_model_is_the_authors(authors, vectors):
    batch = batch_of(vectors, "batch", "mlm_input_ids_a")
    logits = authors.lm_head(authors._encode_tokens(batch)[0, :3])
    torch.testing.assert_close(
        logits, torch.tensor(vectors["expected"]["mlm_logits_a_first_row_first3tokens"]), **CLOSE
    )


@torch.no_grad()
def test_the_whole_loss_is_the_authors(authors, vectors, monkeypatch):
    """Their masks stand in for ours, which are drawn."""
    batches = iter([("batch", "a"), ("batch_b", "b")])

    def masked(histories):
        name, side = next(batches)
        labels = torch.tensor(vectors["inputs"][f"mlm_labels_{side}"])
        total = authors.token_loss(batch_of(vectors, name, f"mlm_input_ids_{side}"), labels)
        return total / (labels != -100).sum()

    monkeypatch.setattr(authors, "mlm_loss", masked)
    targets = torch.tensor(vectors["inputs"]["targets_b"]) + 1
    loss = authors.training_loss(authors(histories_of(vectors)), targets, targets)
    assert loss.mean().item() == pytest.approx(vectors["expected"]["total_loss_cl+0.1*mlm_a+0.1*mlm_b"], rel=1e-4)


# ---- our own --------------------------------------------------------------------------------------------------------


@pytest.fixture
def model() -> RecformerForPretraining:
    made = tiny_recformer(RecformerForPretraining, tiny_split())
    for name, parameter in made.named_parameters():
        if "embeddings" in name:
            torch.nn.init.normal_(parameter, std=0.5)  # so that texts differ
    return made.eval()


HISTORIES = torch.tensor([[3, 2, 1], [7, 0, 0], [9, 8, 0], [1, 5, 4]])
TARGETS = torch.tensor([4, 8, 4, 6])  # one item is the target of two queries


def test_a_repeated_target_is_no_negative_of_itself(model):
    queries = model(HISTORIES).query_embeddings.detach()
    items = model.encode_histories(torch.tensor([[4], [6], [8]])).detach()
    logits = queries @ items.T / 0.05
    expected = torch.logsumexp(logits, dim=1) - logits[torch.arange(4), torch.tensor([0, 2, 0, 1])]
    torch.testing.assert_close(model.loss(queries, TARGETS).detach(), expected, **CLOSE)


def test_two_micro_batches_contrast_as_one_batch(model):
    def gradients(parts):
        model.zero_grad()
        losses = [model.loss(model(HISTORIES[part]).query_embeddings, TARGETS[part], TARGETS) for part in parts]
        torch.cat(losses).mean().backward()
        return torch.cat(losses), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    whole, expected = gradients([slice(0, 4)])
    split, found = gradients([slice(0, 1), slice(1, 4)])
    torch.testing.assert_close(split, whole, **CLOSE)
    assert expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-4, rtol=1e-3, msg=name)


def test_the_item_side_learns_here_and_not_in_fine_tuning(model):
    queries = model(HISTORIES).query_embeddings.detach()
    model.loss(queries, TARGETS).mean().backward()
    assert model.encoder.layer[0].output.dense.weight.grad.abs().sum() > 0

    tuned = tiny_recformer(RecformerModel, tiny_split())
    tuned.encode_items()
    queries = tuned(HISTORIES).query_embeddings
    loss = tuned.loss(queries.detach().requires_grad_(), TARGETS)
    loss.mean().backward()
    assert all(parameter.grad is None for parameter in tuned.parameters())


def test_the_language_model_term_is_the_mean_over_masked_tokens(model):
    model.config.mlm_probability = 0.999999  # all words, so that nothing is left to chance but how they are masked
    output, weight = model(HISTORIES), model.config.mlm_weight
    torch.manual_seed(1)
    histories, targets = model.mlm_loss(HISTORIES), model.mlm_loss(TARGETS[:, None])
    torch.manual_seed(1)
    total = model.training_loss(output, TARGETS, TARGETS)
    contrast = model.loss(output.query_embeddings, TARGETS, TARGETS)
    torch.testing.assert_close(total, contrast + weight * (histories + targets), **CLOSE)
    model.config.mlm_weight = 0
    torch.testing.assert_close(model.training_loss(output, TARGETS, TARGETS), contrast, **CLOSE)


def test_only_masked_tokens_reach_the_vocabulary(model, monkeypatch):
    seen, head = [], model.lm_head.forward
    monkeypatch.setattr(model.lm_head, "forward", lambda states: seen.append(states.shape) or head(states))
    model.config.mlm_probability = 1e-6  # one word of each row
    model.mlm_loss(HISTORIES)
    assert sum(shape[0] for shape in seen) <= 2 * len(HISTORIES) and all(len(shape) == 2 for shape in seen)


def test_words_follow_their_tokens(model):
    (rows, batch), *_ = model.batches(torch.tensor([[2, 1]]))
    words = model.item_words.flatten()[batch.slots].masked_fill(batch.slots < 0, -1)
    assert words.tolist() == [[-1, 0, 1, 1, 2, 0, 1, 1, 2]] and rows.tolist() == [0]
    model.add_items(["new"], features=tokens_of(1))
    assert model.item_words[-1].tolist() == [0, 1, 1, 2]


def test_unlabelled_queries_have_no_loss(model):
    targets = TARGETS.clone()
    targets[1] = -100
    loss = model.training_loss(model(HISTORIES), targets, targets)
    assert loss[1] == 0 and (loss[[0, 2, 3]] > 0).all()
    nothing = model.training_loss(model(HISTORIES[:0]), TARGETS[:0], TARGETS[:0])
    nothing.sum().backward()  # a step without queries is no error
    assert nothing.shape == (0,)


def test_queries_of_a_batch_are_drawn_from_the_newest_half(model):
    rows = [Sequence(np.arange(1, 12), 1, 0), Sequence(np.array([1, 2]), 1, 20), Sequence(np.array([1]), 1, 30)]
    drawn = {length: set() for length in (0, 1)}
    collate = model.collator(training=True)
    for collate.epoch in range(200):
        batch = collate(rows)
        for row, length in enumerate(batch["history_lengths"].tolist()):
            drawn[row].add(length)
    assert drawn[0] == {5, 6, 7, 8, 9, 10} and drawn[1] == {1}


def test_pretraining_learns_and_is_measured_with_fresh_items(tmp_path):
    split = tiny_split()
    train, valid = parts(split)
    model = tiny_recformer(RecformerForPretraining, split)
    settings = {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 4, "learning_rate": 0.01}
    trainer = DistillationTrainer(
        Distiller(model), arguments(tmp_path, **settings), train, valid, callbacks=[EncodeItems()]
    )
    model.encode_items()
    untrained = trainer.evaluate()["eval_ndcg@10"]
    trainer.train()
    measured = [entry["eval_ndcg@10"] for entry in trainer.state.log_history if "eval_ndcg@10" in entry]
    assert len(measured) == 4 and measured[-1] > untrained + 0.05
    saved = RecformerForPretraining.from_pretrained(tmp_path / "checkpoint-12")
    stored = saved.item_vectors.clone()
    torch.testing.assert_close(model.item_vectors, stored)
    saved.encode_items()
    torch.testing.assert_close(saved.item_vectors, stored, **CLOSE)  # no older weights had made them
    assert torch.equal(saved.lm_head.decoder.weight, model.lm_head.decoder.weight)
    assert not torch.equal(saved.lm_head.decoder.weight, saved.embeddings.word_embeddings.weight)
    domain = saved.for_domain(split.catalogue, tokens_of(ITEMS))
    assert type(domain) is RecformerModel and domain.config.loss_type == "softmax"
    assert torch.equal(domain.encoder.layer[0].output.dense.weight, model.encoder.layer[0].output.dense.weight)


def test_bfloat16_is_close_to_float32(model):
    losses = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            torch.manual_seed(0)
            losses.append(model.training_loss(model(HISTORIES), TARGETS, TARGETS).mean())
    assert losses[1].dtype == torch.float32 and losses[1].item() == pytest.approx(losses[0].item(), rel=0.1)


def test_the_mask_token_must_be_in_the_vocabulary():
    with pytest.raises(ConfigError, match="mask_token_id"):
        RecformerForPretraining(RecformerConfig(**{**SIZES, "mask_token_id": 24}))
    with pytest.raises(ConfigError, match="when must be"):
        EncodeItems("sometimes")


# ---- from a text encoder --------------------------------------------------------------------------------------------


def bert(folder, cls):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=24, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, pad_token_id=1
    )
    source = cls(config).eval()
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    source.save_pretrained(folder)
    return source


def from_bert(folder) -> RecformerForPretraining:
    options = {key: SIZES[key] for key in ("max_token_num", "attention_window", "mask_token_id", "max_item_length")}
    return RecformerForPretraining.from_text_encoder(folder, bos_token_id=0, **options)


def test_the_head_of_the_source_is_taken_over(tmp_path):
    source = copy.deepcopy(bert(tmp_path, BertForMaskedLM))
    model = from_bert(tmp_path)
    states = torch.randn(5, 8)
    torch.testing.assert_close(model.lm_head(states), source.cls(states))
    assert model.lm_head.decoder.weight is not model.embeddings.word_embeddings.weight


def test_without_a_head_the_words_are_the_decoder(tmp_path):
    bert(tmp_path, BertModel)
    model = from_bert(tmp_path)
    words = model.embeddings.word_embeddings.weight
    states = torch.randn(5, 8)
    expected = F.layer_norm(F.gelu(states), (8,), eps=model.config.layer_norm_eps) @ words.T
    torch.testing.assert_close(model.lm_head(states), expected)
    assert model.lm_head.decoder.weight is not words

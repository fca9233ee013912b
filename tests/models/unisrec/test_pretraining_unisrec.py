"""Contrastive pre-training: losses and item drop against slow loops, on packed batches."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from seqkd.batches.collators import QueryCollator, Sequence
from seqkd.catalogue import Catalogue
from seqkd.models.unisrec import UniSRecConfig, UniSRecForPretraining, UniSRecModel
from seqkd.models.unisrec.augmentation import drop_items
from seqkd.models.unisrec.contrastive import sequence_sequence_contrast

CONFIG = {
    "num_items": 9,
    "hidden_size": 6,
    "max_position_embeddings": 6,
    "plm_size": 4,
    "num_hidden_layers": 1,
    "intermediate_size": 8,
    "num_experts": 2,
}
HISTORIES = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 1, 2], [3, 4, 3]]


def make(**changes) -> UniSRecForPretraining:
    torch.manual_seed(0)
    model = UniSRecForPretraining(UniSRecConfig(**(CONFIG | changes)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.set_item_features(torch.randn(9, 4))
    return model.eval()


def packed(histories=HISTORIES) -> dict[str, torch.Tensor]:
    return QueryCollator(6)([Sequence(torch.tensor(h).numpy(), 1, 10 * n) for n, h in enumerate(histories)])


def inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: batch[name] for name in UniSRecForPretraining.inputs}


@pytest.mark.parametrize("legacy", [True, False])
def test_losses_equal_a_loop_over_pairs(legacy):
    model = make(legacy_false_negative=legacy)
    batch = packed()
    targets = batch["targets"]
    assert len(targets) > len(targets.unique())  # some targets occur twice
    queries = model(**inputs(batch)).query_embeddings.detach()
    items = F.normalize(model.adaptor(model.item_features), dim=-1)[targets].detach()
    twins = F.normalize(torch.randn_like(queries), dim=-1)
    for positives, loss in (
        (items, model.loss(queries, targets)),
        (twins, sequence_sequence_contrast(queries @ twins.T / 0.07, targets, legacy=legacy)),
    ):
        for i, query in enumerate(queries):
            total = 0.0
            for j, other in enumerate(positives):
                false_negative = i != j and targets[i] == targets[j]
                total += (1.0 if legacy else 0.0) if false_negative else math.exp(float(query @ other) / 0.07)
            expected = math.log(total) - float(query @ positives[i]) / 0.07
            assert loss[i].item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_candidates_make_a_split_batch_equal_the_whole():
    model = make()
    batch = packed()
    queries, targets = model(**inputs(batch)).query_embeddings, batch["targets"]
    whole = model.loss(queries, targets)
    parts = [model.loss(queries[part], targets[part], targets) for part in (slice(0, 3), slice(3, None))]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_losses_are_finite_where_exp_would_overflow():
    model = make(temperature=1e-4, legacy_false_negative=False)
    batch = packed([[1, 2], [1, 2], [1, 2]])  # every negative is a false one
    loss = model.loss(model(**inputs(batch)).query_embeddings, batch["targets"])
    assert loss.tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)
    loss.sum().backward()
    assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.grad is not None)


def slow_drop(history: list[int], keep: list[int]) -> list[int]:
    """The authors' loop: a dropped item overwrites the slot of the kept one before it."""
    result, slot = [0] * len(history), -1
    for position, (item, kept) in enumerate(zip(history, keep, strict=True)):
        slot += 1 if position == 0 or kept else 0
        result[slot] = item
    return result[: slot + 1]


def test_item_drop_of_packed_rows_equals_the_authors_loop():
    generator = torch.Generator().manual_seed(1)
    batch = packed()
    for _ in range(20):
        keep = torch.rand(batch["item_ids"].shape, generator=generator) >= 0.4
        dropped = drop_items(*inputs(batch).values(), keep)
        row, column = batch["query_index"] // 6, batch["query_index"] % 6
        for query, (r, c) in enumerate(zip(row.tolist(), column.tolist(), strict=True)):
            start = c - int(batch["position_ids"][r, c])
            expected = slow_drop(batch["item_ids"][r, start : c + 1].tolist(), keep[r, start : c + 1].tolist())
            at = int(dropped.query_index[query]) - r * 6
            got = dropped.item_ids[r, start : at + 1].tolist()
            assert dropped.position_ids[r, start : at + 1].tolist() == list(range(len(expected)))
            assert (dropped.sequence_ids[r, start : at + 1] == batch["sequence_ids"][r, c]).all()
            assert got[:-1] == expected[:-1] and len(got) == len(expected)
            assert bool(dropped.twin[query]) <= (got == expected)
            longer = c + 1 < 6 and batch["position_ids"][r, c + 1] > 0  # the sequence goes on in the next slot
            assert bool(dropped.twin[query]) == (not longer or bool(keep[r, c + 1]))


def test_nothing_dropped_changes_nothing():
    model = make()
    batch = packed()
    plain = model(**inputs(batch)).query_embeddings
    keep = torch.ones_like(batch["item_ids"])
    augmented, twin = model.without_items(**inputs(batch), keep=keep)
    assert twin.all()
    torch.testing.assert_close(augmented, plain)
    model.set_augmented_features(torch.randn(9, 4))
    torch.testing.assert_close(model.without_words(**inputs(batch), keep=keep), plain)
    assert not torch.equal(model.without_words(**inputs(batch), keep=1 - keep), plain)


def test_training_forward_augments_and_evaluation_does_not():
    model, batch = make(item_drop_ratio=0.5), packed()
    assert model(**inputs(batch)).augmented_embeddings is None
    output = model.train()(**inputs(batch))
    assert output.augmented_embeddings.shape == output.query_embeddings.shape
    targets, twin = batch["targets"], output.twin
    logits = output.query_embeddings[twin] @ output.augmented_embeddings[twin].T / 0.07
    exact = sequence_sequence_contrast(logits, targets[twin], legacy=True)
    seq_seq = model.sequence_loss(output, targets)
    assert 0 < twin.sum() < len(twin) and not seq_seq[~twin].any()
    assert seq_seq.mean().item() == pytest.approx(exact.mean().item())
    torch.manual_seed(3)
    expected = model.loss(output.query_embeddings, targets) + 1e-3 * seq_seq
    torch.manual_seed(3)  # the adaptor draws the same noise
    total = model.training_loss(output, targets)
    torch.testing.assert_close(total, expected)
    total.mean().backward()
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in model.parameters())

    model.config.item_drop_probability = 0  # words only
    model.set_augmented_features(torch.randn(9, 4))
    assert model(**inputs(batch)).twin.all()


def test_bfloat16_training_is_close_to_float32():
    options = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "noisy_gating": False}
    model, batch = make(adaptor_dropout_prob=0.0, **options).train(), packed()
    losses = []
    for enabled in (False, True):
        torch.manual_seed(5)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses.append(model.training_loss(model(**inputs(batch)), batch["targets"]).mean())
    assert losses[1].dtype == torch.float32
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.05)
    losses[1].backward()


def test_unlabelled_queries_have_no_loss():
    model, batch = make(noisy_gating=False, adaptor_dropout_prob=0.0).train(), packed()
    targets = batch["targets"].clone()
    targets[[0, 3]] = -100
    output = model(**inputs(batch))
    loss = model.training_loss(output, targets)
    assert loss[[0, 3]].tolist() == [0, 0] and torch.isfinite(loss).all() and (loss > 0).sum() == len(targets) - 2
    torch.testing.assert_close(model.training_loss(output, targets, targets), loss)


def test_pretraining_learns_and_hands_over(tmp_path):
    model = make(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    batch = packed()
    values = []
    for _ in range(25):
        loss = model.training_loss(model(**inputs(batch)), batch["targets"]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert sum(values[-5:]) < 0.7 * sum(values[:5])

    model.set_augmented_features(torch.randn(9, 4))
    model.save_pretrained(tmp_path)
    again = UniSRecForPretraining.from_pretrained(tmp_path)
    assert again.config.loss_type == "sampled_softmax" and again.augmented_features is None
    domain = again.for_domain(Catalogue("abc"), torch.randn(3, 4), freeze_encoder=True)
    assert type(domain) is UniSRecModel and domain.config.loss_type == "softmax"
    assert torch.equal(domain.adaptor.weight, model.adaptor.weight)
    assert len(domain.recommend([["a"]], 2).item_ids[0]) == 2

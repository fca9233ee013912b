"""The four losses of UniM²Rec's pre-training against slow loops from their equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from seqkd.batches.collators import QueryCollator, Sequence
from seqkd.catalogue import Catalogue
from seqkd.models.unim2rec import UniM2RecConfig, UniM2RecForPretraining, UniM2RecModel

CONFIG = {
    "num_items": 9,
    "hidden_size": 6,
    "max_position_embeddings": 6,
    "modality_sizes": {"text": 4, "image": 3},
    "num_hidden_layers": 1,
    "intermediate_size": 8,
    "num_experts": 2,
}
HISTORIES = [[1, 2, 3, 4, 5], [6, 7], [8, 9, 1, 2], [3, 4, 3]]
ONLY_FUSED = {"per_modality_weight": 0.0, "align_weight": 0.0}


def make(**changes) -> UniM2RecForPretraining:
    torch.manual_seed(0)
    model = UniM2RecForPretraining(UniM2RecConfig(**(CONFIG | changes)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    text, image = torch.randn(9, 4), torch.randn(9, 3)
    image[[1, 4]] = 0  # items 2 and 5
    text[[4, 6]] = 0  # items 5 and 7: item 5 has nothing
    model.set_item_features({"text": text, "image": image})
    return model.eval()


def packed() -> dict[str, torch.Tensor]:
    return QueryCollator(6)([Sequence(np.array(h), 1, 10 * n) for n, h in enumerate(HISTORIES)])


def inputs(batch):
    return {name: batch[name] for name in UniM2RecForPretraining.inputs}


def slow_contrast(queries, items, targets, i: int, there, legacy: bool) -> float:
    """-log of the share of the own target among the targets of all queries whose target is there."""
    total = 0.0
    for j in range(len(targets)):
        if not there[targets[j]]:
            continue
        twin = i != j and targets[i] == targets[j]
        total += (1.0 if legacy else 0.0) if twin else math.exp(float(queries[i] @ items[targets[j]]) / 0.07)
    return math.log(total) - float(queries[i] @ items[targets[i]]) / 0.07


@pytest.mark.parametrize("legacy", [True, False])
def test_item_losses_equal_loops(legacy):
    model, batch = make(legacy_false_negative=legacy), packed()
    with torch.no_grad():
        queries, targets = model(**inputs(batch)).query_embeddings, batch["targets"].tolist()
        fused = F.normalize(model.adaptor(model.item_features), dim=-1)
        available = model.adaptor.available(model.item_features)
        single = F.normalize(model.adaptor.modalities(model.item_features, available), dim=-1)
    everyone = [True] * 10
    expected = torch.tensor([slow_contrast(queries, fused, targets, i, everyone, legacy) for i in range(len(targets))])
    for m in range(2):
        there = available[:, m].tolist()
        asked = [i for i, target in enumerate(targets) if there[target]]
        assert 0 < len(asked) < len(targets)
        for i in asked:  # the mean over those asked is that over all
            contrast = slow_contrast(queries, single[:, m], targets, i, there, legacy)
            expected[i] += 0.1 / 2 * contrast * len(targets) / len(asked)
    both = [item for item in sorted(set(targets)) if available[item].all()]
    align = 0.0
    for a, b in ((0, 1), (1, 0)):
        for i in both:
            total = sum(math.exp(float(single[i, a] @ single[j, b]) / 0.07) for j in both)
            align += (math.log(total) - float(single[i, a] @ single[i, b]) / 0.07) / (2 * len(both))
    expected += 1e-3 * align
    torch.testing.assert_close(model.loss(queries, batch["targets"]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fusion", ["moe_gate", "dynamic_shared"])
def test_candidates_make_a_split_batch_equal_the_whole(fusion):
    model, batch = make(fusion=fusion), packed()
    queries, targets = model(**inputs(batch)).query_embeddings, batch["targets"]
    whole = model.loss(queries, targets)
    split = [model.loss(queries[part], targets[part], targets) for part in (slice(0, 3), slice(3, None))]
    torch.testing.assert_close(torch.cat(split), whole)


def test_dynamic_items_are_contrasted_by_their_scores():
    model, batch = make(fusion="dynamic_shared", legacy_false_negative=False, **ONLY_FUSED), packed()
    model.adaptor.sharpness.data.fill_(3.0)
    queries, targets = model(**inputs(batch)).query_embeddings, batch["targets"]
    scores = model.score(queries, targets)  # (Q, Q)
    same = targets[:, None] == targets
    scores = scores.masked_fill(same & ~torch.eye(len(targets), dtype=torch.bool), -torch.inf)
    torch.testing.assert_close(model.loss(queries, targets), -scores.log_softmax(1).diagonal())


def test_nothing_to_align_is_no_loss():
    model, batch = make(**ONLY_FUSED), packed()
    queries, targets = model(**inputs(batch)).query_embeddings, batch["targets"]
    model.set_item_features({"text": torch.randn(9, 4)})
    plain = model.loss(queries, targets)
    model.config.align_weight = 1.0
    torch.testing.assert_close(model.loss(queries, targets), plain)
    model.config.per_modality_weight = 0.1  # no image: its contrast is nobody's
    more = model.loss(queries, targets)
    assert torch.isfinite(more).all() and (more > plain).all()
    more.sum().backward()


def test_changed_contents_hide_one_modality():
    model = make()
    ids = torch.tensor([[1, 2], [5, 7]])
    changed, plain = model._changed_vectors(ids), model._vectors(ids)
    torch.testing.assert_close(changed[0, 1], plain[0, 1])  # text alone stays
    torch.testing.assert_close(changed[1], plain[1])  # nothing; image alone
    text, image = (
        model.adaptor.experts[0](model.item_features[1, :4]),
        model.adaptor.experts[1](model.item_features[1, 4:]),
    )
    assert any(torch.allclose(changed[0, 0], one, atol=1e-6) for one in (text, image))
    assert not torch.allclose(changed[0, 0], plain[0, 0])


@pytest.mark.parametrize("by_items", [1.0, 0.0])
def test_training_loss_is_the_sum_and_reaches_every_weight(by_items):
    model, batch = make(item_drop_probability=by_items, cross_expert=True).train(), packed()
    targets = batch["targets"].clone()
    targets[3] = -100
    output = model(**inputs(batch))
    assert bool(output.twin.all()) == (by_items == 0)
    seq_seq = model.sequence_loss(output, targets)
    labelled = targets != -100
    torch.manual_seed(3)
    items = model.loss(output.query_embeddings[labelled], targets[labelled])
    torch.manual_seed(3)
    total = model.training_loss(output, targets, targets)
    torch.testing.assert_close(total[labelled], items + 1e-3 * seq_seq[labelled])
    assert total[3] == 0
    total.mean().backward()
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in model.parameters())


def test_pretraining_learns_and_hands_over(tmp_path):
    model = make(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    batch, values = packed(), []
    for _ in range(25):
        loss = model.training_loss(model(**inputs(batch)), batch["targets"]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert sum(values[-5:]) < 0.8 * sum(values[:5])
    model.save_pretrained(tmp_path)
    again = UniM2RecForPretraining.from_pretrained(tmp_path)
    assert isinstance(again.config, UniM2RecConfig) and again.config.loss_type == "sampled_softmax"
    domain = again.for_domain(Catalogue("abc"), {"text": torch.randn(3, 4)}, use_item_embedding=True)
    assert type(domain) is UniM2RecModel and domain.config.loss_type == "softmax"
    assert torch.equal(domain.adaptor.gate, model.adaptor.gate)
    assert len(domain.recommend([["a"]], 2).item_ids[0]) == 2

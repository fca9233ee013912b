"""Fusion of an item's modalities: numbers by hand, what is missing, what is hidden, where gradients go."""

from __future__ import annotations

import math

import pytest
import torch

from seqkd.models.unim2rec.configuration_unim2rec import UniM2RecConfig
from seqkd.models.unim2rec.fusion import ModalityFusion

THREE = {"modalities": ["text", "image", "sound"], "modality_sizes": {"text": 3, "image": 2, "sound": 2}}


def make(**changes) -> ModalityFusion:
    settings = {"hidden_size": 2, "num_experts": 2, "modality_sizes": {"text": 3, "image": 2}, **changes}
    torch.manual_seed(0)
    fusion = ModalityFusion(UniM2RecConfig(**settings))
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter)
    return fusion.eval()


# one item with text and image, one with text, one with image, one without any
FEATURES = torch.tensor([[1.0, -2, 0.5, 3, 1], [2, 0, 1, 0, 0], [0, 0, 0, 0, -1], [0, 0, 0, 0, 0]])
AVAILABLE = torch.tensor([[True, True], [True, False], [False, True], [False, False]])


def test_a_row_of_zeros_is_a_missing_modality():
    assert torch.equal(make().available(FEATURES), AVAILABLE)


def test_the_gate_by_hand():
    fusion = make()
    fusion.gate.data = torch.tensor([[1.0, 0], [0, 0], [0, 0], [0, 1]])  # logits: A_t[0] and A_v[1]
    fusion.missing_item.data = torch.tensor([7.0, 8.0])
    vectors = torch.tensor([[[1.0, 0], [0, 2]], [[3, 4], [0, 0]], [[0, 0], [5, 6]], [[0, 0], [0, 0]]])
    a = 1 / (1 + math.e)  # softmax(1, 2)
    weights = fusion.weights(vectors, AVAILABLE)
    torch.testing.assert_close(weights, torch.tensor([[a, 1 - a], [1, 0], [0, 1], [0, 0]]))
    expected = torch.tensor([[a, 2 * (1 - a)], [3, 4], [5, 6], [7, 8]])
    torch.testing.assert_close(fusion.fuse(vectors, AVAILABLE), expected)


def test_the_mean_is_of_what_is_there():
    fusion = make(fusion="mean")
    vectors = fusion.modalities(FEATURES, AVAILABLE)
    text, image = fusion.experts[0](FEATURES[:, :3]), fusion.experts[1](FEATURES[:, 3:])
    expected = torch.stack([(text[0] + image[0]) / 2, text[1], image[2], fusion.missing_item])
    torch.testing.assert_close(fusion(FEATURES), expected)
    assert not vectors[~AVAILABLE].any()


def test_a_gate_of_zeros_is_the_mean():
    gated, mean = make(), make(fusion="mean")
    gated.gate.data.zero_()
    mean.load_state_dict({name: value for name, value in gated.state_dict().items() if name != "gate"})
    torch.testing.assert_close(gated(FEATURES), mean(FEATURES))


def test_without_learned_vectors_missing_is_zero():
    fusion = make(use_missing_embedding=False, cross_expert=True)
    assert fusion.missing is None and fusion.missing_item is None
    text = torch.cat([fusion.experts[0](FEATURES[1:2, :3]), torch.zeros(1, 2)], dim=1)
    torch.testing.assert_close(fusion(FEATURES)[1:2], text[:, :2] + fusion.cross(text))


def test_the_cross_expert_reads_missing_vectors():
    fusion = make(cross_expert=True)
    text = fusion.experts[0](FEATURES[1, :3])
    torch.testing.assert_close(fusion(FEATURES)[1], text + fusion.cross(torch.cat([text, fusion.missing[1]])))
    torch.testing.assert_close(fusion(FEATURES)[3], fusion.missing_item)


def gradients(fusion: ModalityFusion, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    fusion.zero_grad()
    fusion(x).square().sum().backward()
    return fusion.missing.grad, fusion.missing_item.grad


def test_where_missing_vectors_get_their_gradient():
    two, item = gradients(make(), FEATURES)
    assert not two.any() and item.any()  # one of two: the other has weight 1 whatever the gate says
    crossed, _ = gradients(make(cross_expert=True), FEATURES)
    assert crossed.all()
    x = torch.tensor([[1.0, 2, 3, 0, 0, 4, 5]])  # image is missing, the gate weighs text and sound by it
    three, item = gradients(make(**THREE), x)
    assert three[1].all() and not three[[0, 2]].any() and not item.any()


def test_only_what_is_there_is_adapted():
    fusion, seen = make(), []
    for expert in fusion.experts:
        expert.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    fusion(FEATURES)
    assert seen == [2, 2]


@pytest.mark.parametrize("changes", [{}, THREE])
def test_hiding_leaves_something(changes):
    fusion = make(**changes)
    available = torch.rand(400, len(fusion.sizes)) < 0.6
    visible = fusion.hide(available, 1.0)
    count = available.sum(1)
    assert not (visible & ~available).any()
    assert torch.equal(visible.sum(1), torch.where(count > 1, count - 1, count))
    assert torch.equal(fusion.hide(available, 0.0), available)
    both = torch.ones(4000, 2, dtype=torch.bool)
    lost = (~make().hide(both, 0.2)).float().mean(0)
    assert lost.tolist() == pytest.approx([0.1, 0.1], abs=0.02)


def test_modalities_are_hidden_in_training_only():
    fusion = make(modality_dropout=0.9, adaptor_dropout_prob=0.0, noisy_gating=False)
    x = FEATURES[:1].expand(50, -1)
    assert (fusion(x) == fusion(x)[0]).all()
    assert len(fusion.train()(x).unique(dim=0)) == 3  # both, text, image

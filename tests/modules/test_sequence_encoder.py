"""The encoder: its mask by hand, its attention against a slow loop, dropout that is fast and still dropout."""

from __future__ import annotations

import math

import pytest
import torch

from seqkd.modules.dropout import Dropout
from seqkd.modules.sequence_encoder import Attention, SequenceEncoder, causal_mask


def test_mask_by_hand():
    mask = causal_mask(torch.tensor([[4, 4, 7, 0]]))
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert mask.shape == (1, 1, 4, 4) and mask[0, 0].int().tolist() == expected


def test_mask_over_padding_is_causal_only():
    mask = causal_mask(torch.tensor([[0, 2, 2]]), attend_padding=True)
    assert mask[0, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def slow_attention(module, states, mask):
    """softmax(q k / sqrt(d)) v, one query, one head at a time."""
    batch, length, width = states.shape
    size = width // module.num_heads
    query, key, value = module.qkv(states).split(width, dim=-1)
    out = torch.zeros_like(states)
    for b in range(batch):
        for h in range(module.num_heads):
            part = slice(h * size, (h + 1) * size)
            for i in range(length):
                seen = [j for j in range(length) if mask[b, 0, i, j]]
                logits = torch.stack([query[b, i, part] @ key[b, j, part] / math.sqrt(size) for j in seen])
                weights = logits.softmax(0)
                out[b, i, part] = sum(w * value[b, j, part] for w, j in zip(weights, seen, strict=True))
    return module.dense(out)


@pytest.mark.parametrize("dropout", [0.0, 1e-9])  # 1e-9 rounds to nothing dropped, but takes the explicit path
def test_attention_equals_a_slow_loop(dropout):
    torch.manual_seed(0)
    module = Attention(8, 2, dropout).train()
    states = torch.randn(2, 5, 8)
    mask = causal_mask(torch.tensor([[1, 1, 1, 2, 2], [1, 2, 2, 2, 0]]))
    torch.testing.assert_close(module(states, mask), slow_attention(module, states, mask))


@pytest.mark.parametrize("norm_style", ["post", "pre"])
def test_layer_order(norm_style):
    torch.manual_seed(0)
    encoder = SequenceEncoder(8, 1, 2, 16, norm_style=norm_style).eval()
    layer, states = encoder.layers[0], torch.randn(1, 3, 8)
    mask = causal_mask(torch.ones(1, 3))
    if norm_style == "post":
        middle = layer.attention_norm(states + layer.attention(states, mask))
        expected = layer.feed_forward_norm(middle + layer.feed_forward(middle))
    else:
        middle = states + layer.attention(layer.attention_norm(states), mask)
        expected = middle + layer.feed_forward(layer.feed_forward_norm(middle))
    torch.testing.assert_close(encoder(states, mask), expected)


def test_training_is_finite_in_bfloat16():
    torch.manual_seed(0)
    encoder = SequenceEncoder(8, 2, 2, 16).train()
    states = torch.randn(2, 5, 8) * 1e3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = encoder(states, causal_mask(torch.tensor([[1, 1, 1, 0, 0], [1, 2, 3, 4, 5]])))
    out.float().sum().backward()
    assert out.isfinite().all() and all(p.grad.isfinite().all() for p in encoder.parameters())


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_share_the_mean_and_the_gradient(p):
    torch.manual_seed(0)
    ones = torch.ones(401, 501, requires_grad=True)  # an odd number of elements: the last word of bits is cut
    out = Dropout(p).train()(ones)
    share = (out == 0).float().mean().item()
    assert share == pytest.approx(p, abs=4e-3)
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    assert out.max().item() == pytest.approx(1 / (1 - p), rel=1e-4)
    out.sum().backward()
    assert torch.equal(ones.grad, out.detach())


def test_dropout_neighbours_are_independent():
    torch.manual_seed(0)
    kept = Dropout(0.5).train()(torch.ones(200_000)) != 0
    for lag in range(1, 9):  # eight elements span two words of random bits
        assert (kept[lag:] == kept[:-lag]).float().mean().item() == pytest.approx(0.5, abs=6e-3)


def test_dropout_is_off_in_evaluation_and_at_zero():
    states = torch.randn(3, 3)
    assert Dropout(0.5).eval()(states) is states and Dropout(0.0).train()(states) is states


def test_dropout_follows_the_seed():
    module, states = Dropout(0.5).train(), torch.ones(100)
    torch.manual_seed(3)
    first = module(states)
    second = module(states)
    torch.manual_seed(3)
    assert torch.equal(first, module(states)) and not torch.equal(first, second)

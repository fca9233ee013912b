"""Plain attention under a mask gives what the windows of transformers give, values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from tests.models.recformer.tiny_recformer import tiny_recformer
from tests.tiny import tiny_split
from torch import Tensor
from transformers import LongformerConfig
from transformers.models.longformer.modeling_longformer import LongformerEncoder

from seqkd.models.recformer import RecformerModel, dense_attention

CLOSE = {"atol": 1e-5, "rtol": 1e-4}
LENGTHS = torch.tensor([24, 11, 1])  # all of it, past the first windows, <s> alone


def an_encoder(windows: list[int]) -> LongformerEncoder:
    torch.manual_seed(0)
    shape = {"hidden_size": 12, "num_attention_heads": 3, "intermediate_size": 10, "num_hidden_layers": len(windows)}
    encoder = LongformerEncoder(LongformerConfig(**shape, attention_window=windows))
    for parameter in encoder.parameters():  # biases and norms too
        torch.nn.init.normal_(parameter, std=0.4)
    return encoder.eval()


def windowed(encoder: LongformerEncoder, states: Tensor, present: Tensor) -> Tensor:
    """What transformers computes with global attention on token 0."""
    mask = torch.zeros_like(states[..., 0]).masked_fill(~present, torch.finfo(states.dtype).min)
    mask[:, 0] = 1
    return encoder(states, attention_mask=mask, padding_len=0).last_hidden_state


@pytest.mark.parametrize("windows", [[4], [4, 12, 8], [24, 24]], ids=["narrow", "growing", "all"])
def test_values_and_gradients_are_those_of_transformers(windows):
    encoder = an_encoder(windows)
    states = torch.randn(3, 24, 12, requires_grad=True)
    present = torch.arange(24) < LENGTHS[:, None]
    wanted = torch.randn(3, 24, 12) * present[..., None]  # nobody reads padding

    def run(result: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        encoder.zero_grad()
        states.grad = None
        (result * wanted).sum().backward()
        found = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
        return result[present], found | {"states": states.grad.clone()}

    ours, our_gradients = run(dense_attention.encode(encoder, states, present, windows))
    theirs, their_gradients = run(windowed(encoder, states, present))
    torch.testing.assert_close(ours, theirs, **CLOSE)
    assert our_gradients.keys() == their_gradients.keys()
    for name, expected in their_gradients.items():
        torch.testing.assert_close(our_gradients[name], expected, atol=1e-4, rtol=1e-3, msg=name)


def test_a_token_sees_its_window_and_the_first_token():
    """One layer with a window of 4: token 9 feels tokens 7 to 11 and 0; token 0 feels all that are there."""
    encoder, states = an_encoder([4]), torch.randn(1, 24, 12, requires_grad=True)
    present = torch.arange(24)[None] < 20
    result = dense_attention.encode(encoder, states, present, [4])
    for token, expected in {9: [0, 7, 8, 9, 10, 11], 19: [0, 17, 18, 19], 0: list(range(20))}.items():
        (gradient,) = torch.autograd.grad(result[0, token, 0], states, retain_graph=True)
        assert gradient[0].abs().sum(dim=1).nonzero().flatten().tolist() == expected


@pytest.mark.parametrize("pooler", ["cls", "mean"])
def test_a_recformer_learns_the_same_either_way(pooler, monkeypatch):
    model = tiny_recformer(RecformerModel, tiny_split(), attention_window=4, pooler_type=pooler, num_hidden_layers=2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    histories = torch.tensor([[3, 2, 1, 0, 0, 0], [4, 0, 0, 0, 0, 0], [5, 6, 7, 8, 9, 10]])
    wanted = torch.randn(3, 8)

    def run() -> dict[str, Tensor]:
        model.zero_grad()
        queries = model(histories).query_embeddings
        (queries * wanted).sum().backward()
        found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        return found | {"queries": queries.detach()}

    dense = run()
    monkeypatch.setattr(dense_attention, "LONGEST", 0)
    windows = run()
    assert windows.keys() == dense.keys()
    for name, expected in windows.items():
        torch.testing.assert_close(dense[name], expected, atol=1e-4, rtol=1e-3, msg=name)


@torch.no_grad()
def test_without_a_global_token_a_token_sees_what_the_mask_says():
    layer = an_encoder([4]).layer[0]
    states = torch.randn(2, 5, 12)
    seen = torch.rand(2, 5, 5) < 0.5
    seen |= torch.eye(5, dtype=torch.bool)
    attention, expected = layer.attention.self, torch.zeros(2, 5, 12)
    for b in range(2):
        for i in range(5):
            for head in range(3):
                part = slice(4 * head, 4 * head + 4)
                query = attention.query(states[b, i])[part]
                others = [states[b, j] for j in range(5) if seen[b, i, j]]
                scores = torch.stack([query @ attention.key(other)[part] for other in others]) / math.sqrt(4)
                for share, other in zip(scores.softmax(dim=0), others, strict=True):
                    expected[b, i, part] += share * attention.value(other)[part]
    dense, norm = layer.attention.output.dense, layer.attention.output.LayerNorm
    expected = norm(dense(expected) + states)
    expected = layer.output.LayerNorm(layer.output.dense(F.gelu(layer.intermediate.dense(expected))) + expected)
    torch.testing.assert_close(dense_attention.local(layer, states, seen[:, None]), expected, **CLOSE)


def test_a_token_that_sees_nothing_gives_no_nan():
    layer, states = an_encoder([4]).layer[0], torch.randn(1, 4, 12, requires_grad=True)
    result = dense_attention.local(layer, states, torch.zeros(1, 1, 4, 4, dtype=torch.bool))
    result.square().sum().backward()
    assert result.isfinite().all() and states.grad.isfinite().all()


def test_attention_is_dropped_in_training_only():
    encoder, states = an_encoder([4]), torch.randn(1, 8, 12)
    present = torch.ones(1, 8, dtype=torch.bool)
    encoder.layer[0].attention.self.dropout = 0.5
    twice = [dense_attention.encode(encoder, states, present, [4]) for _ in range(2)]
    assert torch.equal(*twice)
    encoder.layer[0].attention.self.train()  # no other dropout
    one, two = (dense_attention.encode(encoder, states, present, [4]) for _ in range(2))
    assert ((one - two).abs().amax(dim=2) > 1e-4).all()  # of <s> and of others

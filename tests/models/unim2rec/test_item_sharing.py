"""A training step adapts the catalogue once; gradients, noise and memory of it. UniSRec and UniM²Rec alike."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from seqkd.batches.collators import Sequence
from seqkd.catalogue import Catalogue
from seqkd.models.unim2rec import UniM2RecConfig, UniM2RecModel
from seqkd.models.unisrec import UniSRecConfig, UniSRecModel
from seqkd.models.unisrec.adapted_items import AdaptedItems

COMMON = {"num_items": 7, "hidden_size": 6, "max_position_embeddings": 5, "num_hidden_layers": 1, "num_experts": 2}
QUIET = {
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "adaptor_dropout_prob": 0.0,
    "noisy_gating": False,
}
KINDS = ["unisrec", "moe_gate", "mean", "dynamic_shared"]


def make(kind: str, **changes) -> AdaptedItems:
    torch.manual_seed(0)
    settings = {**COMMON, **QUIET, "use_item_embedding": True, **changes}
    text, image = torch.randn(7, 4), torch.randn(7, 3)
    image[2] = 0
    if kind == "unisrec":
        model = UniSRecModel(UniSRecConfig(plm_size=4, **settings))
        model.set_item_features(text)
    else:
        sizes = {"text": 4, "image": 3}
        model = UniM2RecModel(UniM2RecConfig(modality_sizes=sizes, fusion=kind, modality_dropout=0.0, **settings))
        model.set_item_features({"text": text, "image": image})
    model.set_catalogue(Catalogue("abcdefg"))
    return model.train()


def batch_of(model, *histories: list[int]) -> dict[str, torch.Tensor]:
    return model.collator()([Sequence(np.array(history), 1, 0) for history in histories])


def loss_of(model, batch) -> torch.Tensor:
    return model.training_loss(model(**{name: batch[name] for name in model.inputs}), batch["targets"]).sum()


HISTORIES = [[1, 2, 3, 4], [5, 6], [3, 1, 2]]


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_two_passes(kind, monkeypatch):
    results = []
    for shared in (True, False):
        model = make(kind)
        if not shared:
            monkeypatch.setattr(AdaptedItems, "_share_catalogue", lambda self: None)
        for part in HISTORIES:  # accumulated
            loss_of(model, batch_of(model, part)).backward()
        results.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)
    assert results[0]["item_embedding.weight"].any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_catalogue_is_adapted_once_and_forgotten(kind):
    model, calls = make(kind), []
    expert = model.adaptor if kind == "unisrec" else model.adaptor.experts[0]
    expert.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    loss = loss_of(model, batch_of(model, *HISTORIES))
    assert len(calls) == 1 and model._shared is not None
    held = weakref.ref(model._shared.read)
    loss.backward()
    assert model._shared is None
    del loss
    gc.collect()
    assert held() is None
    before = model.item_embeddings().detach()
    with torch.no_grad():
        model.item_embedding.weight.add_(1.0)
    assert not torch.equal(model.item_embeddings(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_shared_where_it_could_be_stale(kind):
    model = make(kind)
    inputs = {name: tensor for name, tensor in batch_of(model, *HISTORIES).items() if name in model.inputs}
    model(**inputs)  # without a backward pass
    assert model._shared is not None
    model.eval()
    assert model._shared is None
    model(**inputs)
    with torch.no_grad():
        model.train()(**inputs)
    assert model._shared is None
    model.config.loss_type = "bpr"
    model(**inputs)
    assert model._shared is None
    frozen = make(kind, use_item_embedding=False)
    frozen.adaptor.requires_grad_(False)
    frozen(**inputs)
    assert frozen._shared is None


def test_one_step_draws_its_noise_once():
    model = make("unisrec", adaptor_dropout_prob=0.5)
    inputs = {name: tensor for name, tensor in batch_of(model, *HISTORIES).items() if name in model.inputs}
    model(**inputs)
    first = model.item_embeddings()
    assert torch.equal(model.item_embeddings(torch.tensor([3, 5])), first[[3, 5]])
    model(**inputs)
    assert not torch.equal(model.item_embeddings(), first)

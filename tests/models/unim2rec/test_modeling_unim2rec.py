"""UniM²Rec as a recommender: features that may be missing, scores, new items, new domains, files, training."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.tiny import ITEMS, arguments, parts, tiny_split
from transformers import AutoModel

from seqkd.batches.collators import Sequence
from seqkd.catalogue import Catalogue
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, DataError, KnowledgeError
from seqkd.knowledge.export import export
from seqkd.models.unim2rec import UniM2RecConfig, UniM2RecModel
from seqkd.models.unim2rec.configuration_unim2rec import FUSIONS
from seqkd.recommenders.recommender import count_items
from seqkd.trainer import DistillationTrainer

SIZES = {
    "num_items": 7,
    "hidden_size": 6,
    "max_position_embeddings": 5,
    "modality_sizes": {"text": 4, "image": 3},
    "num_hidden_layers": 1,
    "intermediate_size": 8,
    "num_experts": 3,
}
VARIANTS = [(fusion, ids) for fusion in FUSIONS for ids in (False, True)]


def features(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Item 2 has no image, item 3 no text, item 4 neither."""
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(count, size, generator=generator) for name, size in SIZES["modality_sizes"].items()}
    made["image"][[1, 3]] = 0
    made["text"][[2, 3]] = 0
    return made


def make(fusion: str = "moe_gate", ids: bool = False, **changes) -> UniM2RecModel:
    torch.manual_seed(0)
    model = UniM2RecModel(UniM2RecConfig(**{**SIZES, "fusion": fusion, "use_item_embedding": ids, **changes}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.set_item_features(features(7))
    model.set_catalogue(Catalogue(f"i{n}" for n in range(1, 8)))
    return model.eval()


def queries(model: UniM2RecModel, *histories: list[int]) -> torch.Tensor:
    batch = model.collator(tail=True)([Sequence(np.array(h), len(h), 0) for h in histories])
    return model(**{name: batch[name] for name in model.inputs}).query_embeddings


# ---- features -------------------------------------------------------------------------------------------------------


def test_one_modality_is_enough(caplog):
    model = make()
    text = features(7)["text"]
    with caplog.at_level(logging.INFO):
        model.set_item_features({"text": text})
    assert "no image vectors are given: all 7 items" in caplog.text and "2 of 7 items have no text" in caplog.text
    scores = model.score(queries(model, [1, 4]))
    assert torch.isfinite(scores).all()
    adapted = F.normalize(model.adaptor.experts[0](text[:1]), dim=-1)
    torch.testing.assert_close(model.item_embeddings()[1:2], adapted)
    torch.testing.assert_close(model.item_embeddings()[4], F.normalize(model.adaptor.missing_item, dim=-1))


def test_wrong_features_are_named():
    model, good = make(), features(7)
    with pytest.raises(DataError, match=r"'imgae'.*'image'"):
        model.set_item_features({"text": good["text"], "imgae": good["image"]})
    with pytest.raises(DataError, match=r"image vectors must be \(7, 3\).*\(7, 4\)"):
        model.set_item_features({"image": good["text"]})
    good["image"][5, 1] = torch.nan
    with pytest.raises(DataError, match="image vector 5 holds NaN"):
        model.set_item_features(good)
    with pytest.raises(DataError, match="dict"):
        model.set_item_features(good["text"])


def test_missing_rows_stay_zero_and_weigh_nothing():
    model = make()
    assert not model.item_features[4].any() and not model.item_features[2, 4:].any()
    weights = model.modality_weights(torch.arange(8))
    assert weights[2].tolist() == [1, 0] and weights[3].tolist() == [0, 1]
    assert weights[[0, 4]].sum() == 0 and weights[1].sum().item() == pytest.approx(1)
    seen = model.modality_embeddings(torch.tensor([2, 3]))
    assert not seen["image"][0].any() and not seen["text"][1].any()
    assert seen["text"][0].norm().item() == pytest.approx(1)


def test_a_model_without_features_is_not_served():
    model = UniM2RecModel(UniM2RecConfig(**SIZES)).eval()
    model.set_catalogue(Catalogue("abcdefg"))
    with pytest.raises(ConfigError, match="set_item_features"):
        model.recommend([["a"]])


# ---- scores ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fusion", "ids"), VARIANTS)
def test_candidates_score_as_the_catalogue(fusion, ids):
    model = make(fusion, ids)
    embedded = queries(model, [1, 2], [4], [3, 5, 6])
    every = model.score(embedded)
    assert every.shape == (3, 8) and (every[:, 0] == torch.finfo(every.dtype).min).all()
    some, each = torch.tensor([4, 1, 1]), torch.tensor([[1, 2], [4, 4], [7, 3]])
    torch.testing.assert_close(model.score(embedded, some), every[:, some])
    torch.testing.assert_close(model.score(embedded, each), every.gather(1, each))
    expected = every[:, 1:].log_softmax(1).gather(1, each - 1)
    torch.testing.assert_close(model.catalogue_log_probs(embedded, each), expected)
    with torch.no_grad():
        torch.testing.assert_close(model.score(embedded), every)  # held ready
    if model.scores_by_dot_product:
        torch.testing.assert_close(every[:, 1:], (embedded @ model.item_embeddings().T)[:, 1:] / 0.07)


def test_dynamic_scores_by_hand():
    model = make("dynamic_shared", True)
    model.adaptor.sharpness.data.fill_(2.0)
    query = queries(model, [1, 2])
    table, experts = model.item_embedding.weight, model.adaptor.experts
    text, image = experts[0](model.item_features[:, :4]), experts[1](model.item_features[:, 4:])
    t, v = (F.cosine_similarity(query, view[1], dim=-1) for view in (text, image))
    a = torch.sigmoid(2 * (t - v))
    both = (F.cosine_similarity(query, table[1], dim=-1) + 2 * (a * t + (1 - a) * v)) / 3
    only = (F.cosine_similarity(query, table[2], dim=-1) + 2 * F.cosine_similarity(query, text[2], dim=-1)) / 3
    none = F.cosine_similarity(query, model.adaptor.missing_item, dim=-1)
    none = (F.cosine_similarity(query, table[4], dim=-1) + 2 * none) / 3
    scores = model.score(query, torch.tensor([1, 2, 4]))[0]
    torch.testing.assert_close(scores, torch.cat([both, only, none]) / 0.07)


def test_the_exporter_knows_what_is_no_dot_product():
    split = tiny_split()
    model = trained(split, "dynamic_shared", epochs=0)
    with pytest.raises(KnowledgeError, match="dot product"):
        export(model, split.train, split=split, part="train", tables=("query_embeddings", "item_embeddings"))
    knowledge = export(model, split.train, split=split, part="train", tables=("query_topk", "item_embeddings"), k=5)
    assert knowledge.tables["item_embeddings"].shape == (ITEMS + 1, 16)


# ---- items, domains, files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fusion", "ids"), VARIANTS)
def test_new_items_leave_old_ones_bit_equal(fusion, ids):
    model = make(fusion, ids)
    with torch.no_grad():
        asked = queries(model, [1, 2])
        old = model.score(asked)
        model.add_items(["text only", "nothing"], features={"text": torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0]])})
        scores = model.score(asked)
    assert scores.shape == (1, 10) and torch.isfinite(scores).all() and len(model.item_counts) == 10
    assert torch.equal(model.item_features[:8, :4], make().item_features[:, :4])
    torch.testing.assert_close(scores[:, :8], old)
    assert torch.equal(queries(model, [1, 2]), asked)
    assert "text only" in model.recommend([["i1"]], 9).item_ids[0]
    with pytest.raises(DataError, match="features="):
        model.add_items(["new"])


@pytest.mark.parametrize(("fusion", "ids"), VARIANTS)
def test_save_and_load(fusion, ids, tmp_path):
    model = make(fusion, ids, freeze_encoder=True, cross_expert=fusion == "mean")
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert isinstance(again, UniM2RecModel) and again.item_ids == model.item_ids
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())
    assert not any(value.requires_grad for value in again.encoder.parameters())
    assert again.recommend([["i1", "i4"]], 3).item_ids == model.recommend([["i1", "i4"]], 3).item_ids


def test_for_domain_shares_all_but_the_items():
    model = make()
    other = model.for_domain(
        Catalogue("xyz"), {"image": torch.randn(3, 3)}, use_item_embedding=True, freeze_encoder=True
    )
    assert type(other) is UniM2RecModel and other.config.num_items == 3 and other.item_embedding is not None
    for name, value in model.state_dict().items():
        if not name.startswith("item_"):
            assert torch.equal(other.state_dict()[name], value), name
    assert not other.item_features[:, :4].any() and not other.encoder.layers[0].attention.qkv.weight.requires_grad
    with pytest.raises(ConfigError, match="UniM2RecConfig has no field 'fusions'"):
        model.for_domain(Catalogue("xyz"), {}, fusions="mean")


# ---- training -------------------------------------------------------------------------------------------------------


def trained(split, fusion: str, epochs: int, folder="unused") -> UniM2RecModel:
    torch.manual_seed(0)
    sizes = {"text": 16, "image": 12}
    settings = {"hidden_size": 16, "max_position_embeddings": 12, "num_items": ITEMS, "fusion": fusion}
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "adaptor_dropout_prob": 0.0}
    model = UniM2RecModel(UniM2RecConfig(**{**SIZES, **settings, **quiet, "modality_sizes": sizes}))
    model.set_item_features({name: torch.randn(ITEMS, size) for name, size in sizes.items()})
    model.set_catalogue(split.catalogue, count_items(split.train, ITEMS))
    if epochs:
        args = arguments(folder, num_train_epochs=epochs, learning_rate=2e-2, logging_steps=100)
        DistillationTrainer(Distiller(model), args, *parts(split)).train()
    return model.eval()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_it_learns_what_follows(fusion, tmp_path):
    split = tiny_split()
    model = trained(split, fusion, 30, tmp_path)
    following = [model.recommend([[f"item{n}", f"item{n + 1}"]], 3).item_ids[0] for n in range(1, 15)]
    assert sum(f"item{n + 2}" in best for n, best in enumerate(following, 1)) >= 10


def test_training_reaches_every_weight():
    for fusion, ids in VARIANTS:
        model = make(fusion, ids, cross_expert=fusion != "dynamic_shared").train()
        batch = model.collator()([Sequence(np.array([1, 2, 3, 4, 5]), 1, 0)] * 4)
        output = model(**{name: batch[name] for name in model.inputs})
        model.training_loss(output, batch["targets"]).mean().backward()
        without = [name for name, value in model.named_parameters() if value.grad is None]
        # no gate or cross expert reads u_m when modalities are compared one by one
        assert without == (["adaptor.missing"] if fusion == "dynamic_shared" else []), (fusion, ids)
        assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.grad is not None)

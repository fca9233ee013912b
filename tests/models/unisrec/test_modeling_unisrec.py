"""UniSRec as a recommender: text alone, learned vectors, new items, new domains, files."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel

from seqkd.batches.collators import Sequence
from seqkd.catalogue import Catalogue
from seqkd.errors import ConfigError, DataError
from seqkd.models.unisrec import UniSRecConfig, UniSRecModel

SIZES = {
    "num_items": 7,
    "hidden_size": 6,
    "max_position_embeddings": 5,
    "plm_size": 4,
    "num_hidden_layers": 1,
    "intermediate_size": 8,
    "num_experts": 3,
}


def make(**changes) -> UniSRecModel:
    torch.manual_seed(0)
    model = UniSRecModel(UniSRecConfig(**(SIZES | changes)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.set_item_features(torch.randn(model.config.num_items, 4))
    model.set_catalogue(Catalogue(f"i{n}" for n in range(1, model.config.num_items + 1)))
    return model.eval()


def queries(model: UniSRecModel, *histories: list[int]) -> torch.Tensor:
    batch = model.collator(tail=True)([Sequence(torch.tensor(h).numpy(), len(h), 0) for h in histories])
    return model(**{name: batch[name] for name in model.inputs}).query_embeddings


@pytest.mark.parametrize("transductive", [False, True])
def test_an_item_is_its_adapted_text_and_its_learned_vector(transductive):
    model = make(use_item_embedding=transductive)
    expected = model.adaptor(model.item_features)
    if transductive:
        expected = expected + model.item_embedding.weight
    expected = F.normalize(expected, dim=-1)
    torch.testing.assert_close(model.item_embeddings(), expected)
    ids = torch.tensor([[3, 3], [0, 7]])
    torch.testing.assert_close(model.item_embeddings(ids), expected[ids])


def test_packing_changes_nothing():
    model = make()
    histories = [[1, 2, 3], [4], [5, 6], [7, 1, 2, 3, 4]]
    alone = torch.cat([queries(model, history) for history in histories])
    torch.testing.assert_close(queries(model, *histories), alone)
    torch.testing.assert_close(alone.norm(dim=1), torch.ones(4))


def test_scores_are_cosines_over_the_temperature():
    model = make()
    embedded = queries(model, [1, 2])
    scores = model.score(embedded)[0]
    cosine = F.cosine_similarity(embedded, model.adaptor(model.item_features[4])[None], dim=-1)
    assert scores[4].item() == pytest.approx(cosine.item() / 0.07, rel=1e-5)
    assert scores[0] == torch.finfo(scores.dtype).min


def test_item_vectors_served_are_never_stale():
    model = make()
    with torch.no_grad():
        first = model.item_embeddings()
        assert model.item_embeddings() is first  # computed once for a whole evaluation
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    model.item_embeddings()[1:].sum().backward()
    optimizer.step()  # without train() in between
    with torch.no_grad():
        second = model.item_embeddings()
    assert not torch.equal(first, second)
    torch.testing.assert_close(second, model.item_embeddings().detach())  # with gradients: computed afresh
    with torch.no_grad():
        model.load_state_dict(make().state_dict())
        torch.testing.assert_close(model.item_embeddings(), first)
        model.set_item_features(torch.ones(7, 4))
        assert not torch.equal(model.item_embeddings(), first)


def test_save_and_load_keep_text_and_ids(tmp_path):
    model = make(use_item_embedding=True, freeze_encoder=True)
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert isinstance(again, UniSRecModel) and again.item_ids == model.item_ids
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())
    assert not any(value.requires_grad for value in again.encoder.parameters())
    assert again.recommend([["i1", "i2"]], 3).item_ids == model.recommend([["i1", "i2"]], 3).item_ids


def test_freeze_encoder_freezes_positions_and_encoder_only():
    model = make(freeze_encoder=True)
    frozen = {name.split(".")[0] for name, value in model.named_parameters() if not value.requires_grad}
    learned = {name.split(".")[0] for name, value in model.named_parameters() if value.requires_grad}
    assert frozen == {"position_embedding", "encoder"} and learned == {"adaptor", "embedding_norm"}


@pytest.mark.parametrize("transductive", [False, True])
def test_new_items_are_scored_from_their_text(transductive):
    model = make(use_item_embedding=transductive)
    old, asked = model.item_embeddings().detach().clone(), queries(model, [1, 2])
    with torch.no_grad():
        model.item_embeddings()
    text = model.item_features[3:4].clone()
    model.add_items(["new"], features=text)
    assert model.config.num_items == 8 and model.item_ids[-1] == "new" and len(model.item_counts) == 9
    with torch.no_grad():
        vectors = model.item_embeddings()
    assert vectors.shape == (9, 6)
    torch.testing.assert_close(vectors[:8], old)
    torch.testing.assert_close(vectors[8:], F.normalize(model.adaptor(text), dim=-1))
    torch.testing.assert_close(queries(model, [1, 2]), asked)
    assert "new" in model.recommend([["i1"]], 8).item_ids[0]


def test_add_items_says_what_is_missing():
    model = make()
    with pytest.raises(DataError, match="features="):
        model.add_items(["new"])
    with pytest.raises(DataError, match=r"\(1, 4\)"):
        model.add_items(["new"], features=torch.zeros(1, 5))
    with pytest.raises(DataError, match="already"):
        model.add_items(["i1"], features=torch.zeros(1, 4))
    with pytest.raises(ConfigError, match="inductive"):
        model.add_items(["new"], torch.zeros(1, 6), features=torch.zeros(1, 4))
    assert model.config.num_items == 7 and model.item_features.shape == (8, 4)


def test_set_item_features_refuses_other_shapes_and_nan():
    model = make()
    with pytest.raises(DataError, match=r"\(7, 4\).*\(8, 4\)"):
        model.set_item_features(torch.zeros(8, 4))
    broken = torch.zeros(7, 4)
    broken[2, 1] = float("nan")
    with pytest.raises(DataError, match="text vector 2"):
        model.set_item_features(broken.numpy())


def test_a_catalogue_without_texts_is_not_served():
    model = UniSRecModel(UniSRecConfig(**SIZES)).eval()
    model.set_catalogue(Catalogue("abcdefg"))
    with pytest.raises(ConfigError, match="set_item_features"):
        model.recommend([["a"]])


def test_for_domain_shares_all_but_the_items():
    model = make()
    features = torch.randn(3, 4)
    other = model.for_domain(
        Catalogue(["x", "y", "z"]), features, torch.tensor([0.0, 1, 2, 3]), use_item_embedding=True
    )
    assert other.config.num_items == 3 and model.config.num_items == 7 and not model.config.use_item_embedding
    for name, value in model.state_dict().items():
        if not name.startswith("item_"):
            assert torch.equal(other.state_dict()[name], value), name
    assert torch.equal(other.item_features[1:], features) and other.item_counts.tolist() == [0, 1, 2, 3]
    assert other.item_embedding is not None and not other.training
    other.adaptor.weight.data.zero_()
    assert model.adaptor.weight.any()  # a copy
    with pytest.raises(ConfigError, match="use_item_embeddings"):
        model.for_domain(Catalogue(["x"]), features[:1], use_item_embeddings=True)


@pytest.mark.parametrize(
    "changes", [{"hidden_size": 8}, {"num_hidden_layers": 2}, {"num_experts": 2}, {"max_position_embeddings": 6}]
)
def test_a_domain_of_another_shape_is_refused(changes):
    model = make(num_attention_heads=2)
    with pytest.raises(ConfigError, match="another shape with"):
        model.for_domain(Catalogue(["x"]), torch.randn(1, 4), **changes)


def test_training_reaches_everything_and_learns():
    model = make(use_item_embedding=True).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    batch = model.collator()([Sequence(torch.tensor([1, 2, 3, 4, 5]).numpy(), 1, 0)] * 4)
    inputs = {name: batch[name] for name in model.inputs}
    losses = []
    for _ in range(25):
        loss = model.loss(model(**inputs).query_embeddings, batch["targets"]).mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(value.grad is not None for value in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 4}, "multiple"),
        ({"similarity": "dot"}, "cosine"),
        ({"num_experts": 0}, "num_experts"),
        ({"adaptor_dropout_prob": 1.0}, "adaptor_dropout_prob"),
        ({"item_drop_probability": 1.5}, "item_drop_probability"),
        ({"hidden_act": "swish"}, "hidden_act"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(Exception, match=message):
        UniSRecConfig(**(SIZES | changes))

"""What FM and DeepFM do alike: recommend to known and unknown users, grow, train, and come back from files."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import ITEMS, USERS, arguments, tiny_split
from transformers import AutoConfig, AutoModel

from seqkd.batches.collators import SequenceDataset
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, DataError
from seqkd.evaluation.ranks import rank_targets
from seqkd.models.deepfm import DeepFMConfig, DeepFMModel
from seqkd.models.fm import FMConfig, FMModel
from seqkd.recommenders.recommender import count_items
from seqkd.trainer import DistillationTrainer

BOTH = pytest.mark.parametrize("kind", [(FMModel, FMConfig), (DeepFMModel, DeepFMConfig)], ids=["fm", "deepfm"])
SPLIT = tiny_split()


def tiny(kind, scale=8.0, **settings):
    model_class, config_class = kind
    torch.manual_seed(0)
    defaults = {"num_items": ITEMS, "num_users": USERS, "hidden_size": 8, "history_window": 3}
    model = model_class(config_class(**{**defaults, **settings})).eval()
    with torch.no_grad():
        for table in model.fields.children():  # tiny as they start, all users would be alike
            table.weight.mul_(scale)
    model.set_catalogue(SPLIT.catalogue, count_items(SPLIT.train, ITEMS))
    model.set_users(SPLIT.users)
    return model


def best(model, user, history, k, seen=()):
    """By hand: the k best items in external ids."""
    window = [*reversed(history)][: model.history_window] or [0]
    embedded = model(user_ids=torch.tensor([user]), histories=torch.tensor([window])).query_embeddings
    scores = model.score(embedded)[0]
    scores[list(seen)] = -torch.inf
    return SPLIT.catalogue.decode(scores.topk(k).indices.tolist())


def same_lists(one, other, histories, **asked):
    """The same items; scores to rounding, which depends on where in memory the weights lie."""
    a, b = (model.recommend(histories, 10, **asked) for model in (one, other))
    assert a.item_ids == b.item_ids
    torch.testing.assert_close(torch.tensor(a.scores), torch.tensor(b.scores), rtol=1e-5, atol=1e-4)


def dataset(part):
    return SequenceDataset(SPLIT.part(part), ITEMS, SPLIT.users)


# ---- recommend ----------------------------------------------------------------------------------------------------


@BOTH
def test_known_users(kind):
    model = tiny(kind)
    told = model.recommend([["item3", "item9", "item4", "item7"], ["item1"]], 5, users=["u2", "u0"])
    known = SPLIT.users.encode(["u2", "u0"])
    assert told.item_ids[0] == best(model, known[0], [3, 9, 4, 7], 5, seen=[3, 9, 4, 7])
    assert told.item_ids[1] == best(model, known[1], [1], 5, seen=[1])
    assert told.from_popularity == [False, False]
    other = model.recommend([["item3", "item9", "item4", "item7"]], 5, users=["u5"])
    assert other.scores[0] != told.scores[0]  # the user counts


@BOTH
def test_unknown_users_are_answered_from_their_history(kind):
    model = tiny(kind)
    told = model.recommend([["item3", "item9"], ["item1"]], 5)
    assert told.item_ids == [best(model, 0, [3, 9], 5, seen=[3, 9]), best(model, 0, [1], 5, seen=[1])]
    assert told == model.recommend([["item3", "item9"], ["item1"]], 5, users=["who", "what"])
    assert told.from_popularity == [False, False]


@BOTH
def test_without_user_and_history_popularity_answers(kind):
    model = tiny(kind)
    told = model.recommend([[], ["item3"]], 3)
    assert told.from_popularity == [True, False]
    assert told.item_ids[0] == SPLIT.catalogue.decode(model.item_counts.topk(3).indices.tolist())


@BOTH
def test_a_known_user_without_a_history(kind):
    model = tiny(kind)
    told = model.recommend([[], ["item3"], []], 4, users=["u2", "u2", "nobody"])
    user = SPLIT.users.encode(["u2"])[0]
    assert told.item_ids[0] == best(model, user, [], 4)
    assert told.item_ids[1] == best(model, user, [3], 4, seen=[3])
    assert told.from_popularity == [False, False, True]


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_answer_too(kind, dtype):
    model = tiny(kind).to(dtype)
    embedded = model(user_ids=torch.tensor([1, 0]), histories=torch.tensor([[2, 1], [0, 0]])).query_embeddings
    assert embedded.dtype == dtype and embedded.isfinite().all()
    assert len(model.recommend([["item3"], []], 4, users=["u0", "nobody"]).item_ids[1]) == 4


@BOTH
def test_only_the_window_is_read_and_all_is_filtered(kind):
    model = tiny(kind)
    told = model.recommend([["item3", "item9", "item4"], ["item8", "item3", "item9", "item4"]], ITEMS)
    assert [item for item in told.item_ids[0] if item != "item8"] == told.item_ids[1]


# ---- files and new items ------------------------------------------------------------------------------------------


@BOTH
def test_auto_classes_load_what_was_saved(kind, tmp_path):
    model = tiny(kind, num_attributes=4, num_attribute_fields=2, temperature=0.5, share_item_table=False)
    model.set_item_attributes(torch.randint(5, (ITEMS, 2)))
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is kind[0] and not loaded.training
    assert AutoConfig.from_pretrained(tmp_path).to_dict() == loaded.config.to_dict()
    assert loaded.history_window == 3 and loaded.users == SPLIT.users
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    same_lists(loaded, model, [["item3", "item9"], ["item1"]], users=["u3", "?"])


@BOTH
@pytest.mark.parametrize("share", [True, False])
def test_new_items_leave_old_rows_as_they_are(kind, share, tmp_path):
    model = tiny(kind, share_item_table=share, num_attributes=4, num_attribute_fields=2)
    model.set_item_attributes(torch.randint(5, (ITEMS, 2)))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    asked = {"user_ids": torch.tensor([4, 0]), "histories": torch.tensor([[3, 1, 7], [2, 0, 0]])}
    scores = model.score(model(**asked).query_embeddings)
    vectors = torch.randn(2, 8)

    model.add_items(["new1", "new2"], vectors, attributes=torch.tensor([[1, 0], [4, 2]]))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor[: len(before[name])], before[name]), name
        grows = name.startswith(("item_counts", "fields.item", "fields.history"))
        assert len(tensor) == len(before[name]) + 2 * grows, name
    assert torch.equal(model.fields.item.weight[-2:], vectors)
    assert torch.equal(model.fields.item_attributes[-2:], torch.tensor([[1, 0], [4, 2]]))
    weights = model.fields.item_weight.weight
    torch.testing.assert_close(weights[-2:], weights[1:-2].mean(0).expand(2, 1))
    grown = model.score(model(**asked).query_embeddings)
    torch.testing.assert_close(grown[:, : ITEMS + 1], scores)

    model.add_items(["new3"])  # neither vector nor attributes: the mean of the others, and none
    assert not model.fields.item_attributes[-1].any()
    torch.testing.assert_close(model.fields.item.weight[-1], model.fields.item.weight[1:-1].mean(0))
    found = model.recommend([["item3", "new1"]], 30)  # read and recommended at once
    assert {"new2", "new3"} < set(found.item_ids[0]) and "new1" not in found.item_ids[0]
    model.save_pretrained(tmp_path)
    same_lists(AutoModel.from_pretrained(tmp_path), model, [["item3", "new1"]])


@BOTH
def test_new_items_that_do_not_fit_change_nothing(kind):
    model = tiny(kind, num_attributes=4, num_attribute_fields=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for ids, arguments_, problem in (
        (["new"], {"attributes": torch.tensor([[1, 5]])}, r"outside 0\.\.4"),
        (["new"], {"attributes": torch.tensor([[1]])}, r"\(1, 2\)"),
        (["new"], {"embeddings": torch.zeros(1, 10)}, r"\(1, 8\)"),
        (["item3"], {}, "already in the catalogue"),
    ):
        with pytest.raises(DataError, match=problem):
            model.add_items(ids, **arguments_)
    assert model.config.num_items == len(model.catalogue) == ITEMS
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    with pytest.raises(ConfigError, match="num_attributes"):
        tiny(kind).add_items(["new"], attributes=torch.tensor([[1]]))


# ---- training -----------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("loss_type", ["bce", "bpr", "sampled_softmax"])
def test_two_epochs_lower_the_loss(kind, loss_type, tmp_path):
    negatives = 8 if loss_type == "sampled_softmax" else 1
    model = tiny(kind, scale=1.0, loss_type=loss_type, num_negatives=negatives)
    trainer = DistillationTrainer(Distiller(model), arguments(tmp_path, learning_rate=3e-2), dataset("train"))
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(logged) % 2 == 0
    first, second = (sum(part) for part in (logged[: len(logged) // 2], logged[len(logged) // 2 :]))
    assert second < 0.95 * first
    metrics = rank_targets(model, dataset("valid"), depth=10).metrics((10,))
    assert 0 <= metrics["ndcg@10"] <= 1


@BOTH
def test_training_draws_pairs_with_their_histories(kind):
    model = tiny(kind)
    batch = model.collator(training=True)(model.training_rows(dataset("train")).__getitems__([0, 1, 2, 3, 4]))
    assert batch["histories"].shape[1] == 3 and not batch["histories"][0].any()  # the first of a user has none before
    assert batch["negatives"].shape == (5, 1)
    assert set(model.inputs) <= set(batch)
    evaluated = model.collator(seen=True)(list(dataset("valid"))[:2])
    assert evaluated["histories"].shape == (2, 3) and set(model.inputs) <= set(evaluated)

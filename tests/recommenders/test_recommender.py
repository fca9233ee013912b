"""What every recommender promises: external ids in and out, scores and losses, a growing catalogue."""

from __future__ import annotations

import logging

import pytest
import torch
from datasets import Dataset
from transformers import AutoModel

from seqkd.batches.collators import Sequence
from seqkd.catalogue import Catalogue
from seqkd.data.interactions import load_interactions
from seqkd.data.splits import leave_one_out
from seqkd.errors import ConfigError, DataError
from seqkd.models.sasrec import SASRecConfig, SASRecModel
from seqkd.recommenders.recommender import RecommenderModel, count_items

from ..tiny import rows_of

ITEMS = [f"B{i:02d}" for i in range(1, 11)]  # B01 is row 1
COUNTS = torch.tensor([0.0, 3, 9, 1, 7, 2, 8, 4, 6, 5, 0])  # most bought: B02 B06 B04 B08 B09 ...


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = SASRecConfig(num_items=10, hidden_size=8, intermediate_size=16, max_position_embeddings=4)
    model = SASRecModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.5)
        model.item_embedding.weight[0] = 0
    model.set_catalogue(Catalogue(ITEMS), COUNTS)
    return model


def slow_scores(model, history):
    """Scores of one history over rows 1..I, from a batch of its own."""
    rows = model.catalogue.encode(history)
    batch = model.collator(tail=True)([Sequence(rows, len(rows), 0)])
    return model.score(model(**{name: batch[name] for name in model.inputs}).query_embeddings)[0, 1:].tolist()


# ---- recommend ----------------------------------------------------------------------------------------------------


def test_recommends_the_best_unseen_items_in_external_ids(model):
    histories = [["B03", "B01"], ["B07"], ["B03", "B01", "B05"]]
    found = model.recommend(histories, k=4)
    for history, items, scores in zip(histories, found.item_ids, found.scores, strict=True):
        ranked = sorted(zip(slow_scores(model, history), ITEMS, strict=True), reverse=True)
        expected = [(score, item) for score, item in ranked if item not in history][:4]
        assert items == [item for _, item in expected]
        assert scores == pytest.approx([score for score, _ in expected], abs=1e-5)
    assert found.from_popularity == [False, False, False]


def test_seen_items_come_back_when_they_are_not_filtered(model):
    found = model.recommend([["B03", "B01"]], k=10, filter_seen=False)
    assert sorted(found.item_ids[0]) == ITEMS


def test_batches_do_not_matter(model):
    histories = [["B03", "B01"], [], ["B07"], ["B01", "B02", "B03"]]
    together, one = model.recommend(histories, k=3), model.recommend(histories, k=3, batch_size=1)
    assert together.item_ids == one.item_ids
    for a, b in zip(together.scores, one.scores, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_empty_and_unknown_histories_get_the_most_popular(model, caplog):
    with caplog.at_level(logging.WARNING):
        found = model.recommend([[], ["no such item"], ["B01", "nor this"]], k=3)
    assert found.item_ids[0] == found.item_ids[1] == ["B02", "B06", "B04"]
    assert found.from_popularity == [True, True, False]
    assert found.item_ids[2] == model.recommend([["B01"]], k=3).item_ids[0]
    assert "2 of 3 history items are not in the catalogue" in caplog.text


def test_no_histories_at_all(model):
    assert model.recommend([], k=3).item_ids == []


def test_a_long_history_is_read_at_its_end_and_filtered_whole(model):
    long = ["B09", "B08", "B01", "B02", "B03", "B04"]  # 4 are read
    found = model.recommend([long], k=10)
    assert set(found.item_ids[0]) == set(ITEMS) - set(long)
    scores = dict(zip(ITEMS, slow_scores(model, long[-4:]), strict=True))
    assert found.scores[0] == pytest.approx([scores[item] for item in found.item_ids[0]], abs=1e-5)


def test_everything_seen_leaves_nothing(model):
    found = model.recommend([ITEMS, ITEMS[:9]], k=3)
    assert found.item_ids == [[], ["B10"]] and found.scores[0] == []


def test_k_above_the_catalogue_is_cut_with_a_warning(model, caplog):
    with caplog.at_level(logging.WARNING):
        found = model.recommend([["B01"]], k=99, filter_seen=False)
    assert len(found.item_ids[0]) == 10 and "k=99" in caplog.text


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(model, k):
    with pytest.raises(DataError, match=f"got {k}"):
        model.recommend([["B01"]], k=k)


@pytest.mark.parametrize("histories", ["B01", ["B01", "B02"]])
def test_a_bare_string_is_refused(model, histories):
    with pytest.raises(DataError, match="list of lists"):
        model.recommend(histories)


def test_a_model_in_training_stays_in_training(model):
    model.train()
    first, second = model.recommend([["B01"]]), model.recommend([["B01"]])
    assert first == second and model.training


def test_without_ids_it_says_what_to_call():
    with pytest.raises(ConfigError, match="set_catalogue"):
        SASRecModel(SASRecConfig(num_items=3, hidden_size=4)).recommend([["a"]])


def test_catalogue_and_counts_of_another_size_are_refused(model):
    with pytest.raises(ConfigError, match="holds 2 items"):
        model.set_catalogue(Catalogue(["a", "b"]))
    with pytest.raises(ConfigError, match="item_counts"):
        model.set_catalogue(Catalogue(ITEMS), torch.zeros(10))


def test_count_items():
    rows = rows_of([[1, 2, 2], [3]], last_only=False)
    assert count_items(rows, 4).tolist() == [0, 1, 2, 1, 0]
    assert count_items(rows.select([1]), 4).tolist() == [0, 0, 0, 1, 0]
    assert count_items(rows.select([]), 2).tolist() == [0, 0, 0]


def test_count_items_of_a_history_that_is_cut_into_overlapping_rows():
    bought = [("long", item) for item in range(1, 31)] + [("short", item) for item in (1, 2, 3)]
    log = [{"user_id": user, "item_id": f"{item:02}", "timestamp": at} for at, (user, item) in enumerate(bought)]
    split = leave_one_out(load_interactions(Dataset.from_list(log)), max_length=6)
    assert len(split.train) > 2
    counts = count_items(split.train, len(split.catalogue))
    assert counts[split.catalogue.encode(["01", "02", "28"])].tolist() == [2, 1, 1] and counts.sum() == 28 + 1


# ---- scores and losses --------------------------------------------------------------------------------------------


def test_scores_of_candidates_are_columns_of_all_scores(model):
    queries = torch.randn(3, 8)
    every = model.score(queries)
    assert every.shape == (3, 11) and (every[:, 0] == torch.finfo(every.dtype).min).all()
    torch.testing.assert_close(model.score(queries, torch.tensor([4, 2])), every[:, [4, 2]])
    own = torch.tensor([[1, 2], [3, 4], [5, 6]])
    torch.testing.assert_close(model.score(queries, own), every.gather(1, own))


def test_temperature_divides_scores(model):
    queries = torch.randn(2, 8)
    plain = model.score(queries)[:, 1:]
    model.config.temperature = 0.5
    torch.testing.assert_close(model.score(queries)[:, 1:], plain * 2)


@pytest.mark.parametrize("loss_type", ["softmax", "sampled_softmax", "bce", "gbce", "bpr"])
def test_every_loss_trains(model, loss_type):
    model.config.loss_type, model.config.num_negatives = loss_type, 5
    queries = torch.randn(3, 8, requires_grad=True)
    loss = model.loss(queries, torch.tensor([1, 5, 10]))
    assert loss.shape == (3,) and loss.isfinite().all() and (loss > 0).all()
    loss.mean().backward()
    table_grad = model.item_embedding.weight.grad.to_dense()  # sparse: nothing but the loss looked items up
    assert queries.grad.any() and table_grad[[1, 5, 10]].any(dim=1).all()
    assert not table_grad[0].any()


def test_the_full_softmax_is_the_cross_entropy_of_the_scores(model):
    model.config.temperature = 0.3
    queries, targets = torch.randn(3, 8), torch.tensor([1, 5, 10])
    expected = torch.nn.functional.cross_entropy(model.score(queries), targets, reduction="none")
    torch.testing.assert_close(model.loss(queries, targets), expected)


def test_sampled_softmax_makes_nothing_of_the_size_of_the_catalogue_but_vectors():
    """Beside the table and its gradient, a step holds at most `(I+1,)` vectors: memory is flat in the catalogue."""
    torch.manual_seed(0)
    config = SASRecConfig(num_items=50_000, hidden_size=4, num_attention_heads=1, loss_type="sampled_softmax")
    model = SASRecModel(config)
    shapes = set()

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            shapes.update(tuple(t.shape) for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, torch.Tensor))
            return out

    queries = torch.randn(64, 4, requires_grad=True)
    with Watch():
        model.loss(queries, torch.randint(1, 50_000, (64,))).mean().backward()
    large = {shape for shape in shapes if torch.Size(shape).numel() >= 50_000}
    assert large <= {(50_001, 4), (50_001,), (50_000,)}


# ---- a growing catalogue ------------------------------------------------------------------------------------------


def test_added_items_leave_old_rows_bit_equal_through_files(model, tmp_path):
    old_table, old_scores = model.item_embedding.weight.clone(), slow_scores(model, ["B03", "B01"])
    vectors = torch.randn(2, 8)
    model.add_items(["B11", "B12"], vectors)
    assert model.config.num_items == 12 and model.item_ids[-2:] == ("B11", "B12")
    assert torch.equal(model.item_embedding.weight[:11], old_table)
    assert torch.equal(model.item_embedding.weight[11:], vectors)
    assert slow_scores(model, ["B03", "B01"])[:10] == pytest.approx(old_scores, abs=1e-6)
    assert model.item_counts.tolist() == [*COUNTS.tolist(), 0, 0]

    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.item_embedding.weight, model.item_embedding.weight)
    assert loaded.recommend([["B12"]], k=12).item_ids == model.recommend([["B12"]], k=12).item_ids
    assert model.item_embedding.weight.requires_grad


def test_an_added_item_without_vector_is_average(model):
    mean = model.item_embedding.weight[1:].mean(dim=0)
    model.add_items(["new"])
    torch.testing.assert_close(model.item_embedding.weight[11], mean)


@pytest.mark.parametrize("items", [["B03"], ["new", "new"], [""]])
def test_wrong_additions_change_nothing(model, items):
    with pytest.raises(DataError):
        model.add_items(items)
    assert len(model.item_ids) == model.config.num_items == 10 and len(model.item_embedding.weight) == 11


def test_vectors_of_another_width_are_refused(model):
    with pytest.raises(DataError, match=r"\(1, 8\)"):
        model.add_items(["new"], torch.zeros(1, 4))


def test_the_base_class_asks_for_the_verbs():
    base = RecommenderModel(SASRecConfig(num_items=3, hidden_size=4))
    with pytest.raises(NotImplementedError):
        base.item_embeddings()

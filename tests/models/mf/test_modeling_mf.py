"""MF: vectors by hand, BPR, known users only, a falling loss, files."""

from __future__ import annotations

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from tests.tiny import ITEMS, USERS, arguments, tiny_split
from transformers import AutoConfig, AutoModel

from seqkd.batches.collators import SequenceDataset
from seqkd.catalogue import Catalogue
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, DataError
from seqkd.models.mf import MFConfig, MFModel
from seqkd.trainer import DistillationTrainer

USER_ROWS = [[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]]
ITEM_ROWS = [[0.0, 0.0], [1.0, 2.0], [-2.0, 0.0], [0.0, 5.0]]


def by_hand(**settings):
    model = MFModel(MFConfig(num_users=2, num_items=3, hidden_size=2, **settings)).eval()
    with torch.no_grad():
        model.user_embedding.weight.copy_(torch.tensor(USER_ROWS))
        model.item_embedding.weight.copy_(torch.tensor(ITEM_ROWS))
    model.set_catalogue(Catalogue("abc"))
    model.set_users(Catalogue(["ann", "bob"]))
    return model


def test_scores_are_dot_products():
    scores = by_hand(temperature=0.5).score(by_hand()(torch.tensor([1, 2])).query_embeddings)
    torch.testing.assert_close(scores[:, 1:], torch.tensor([[22.0, -12, 40], [2, -4, 0]]))
    assert (scores[:, 0] == torch.finfo(scores.dtype).min).all()


def test_scores_are_cosines():
    model = by_hand(similarity="cosine")
    scores = model.score(model(torch.tensor([1])).query_embeddings, torch.tensor([[1, 2, 3]]))
    torch.testing.assert_close(scores, torch.tensor([[11 / (5 * 5**0.5), -0.6, 0.8]]))
    torch.testing.assert_close(model.item_embeddings(torch.tensor([3, 1])), model.item_embeddings()[[3, 1]])


def test_bpr_by_hand_reaches_only_the_rows_of_the_pair():
    model = by_hand().train()
    loss = model.training_loss(model(torch.tensor([2])), torch.tensor([1]), negatives=torch.tensor([[2]]))
    assert loss.tolist() == pytest.approx([math.log1p(math.exp(-3))])  # scores 1 and -2
    loss.sum().backward()
    slope = -1 / (1 + math.exp(3))
    zero = [0.0, 0.0]
    torch.testing.assert_close(model.user_embedding.weight.grad, torch.tensor([zero, zero, [3 * slope, 2 * slope]]))
    torch.testing.assert_close(
        model.item_embedding.weight.grad, torch.tensor([zero, [slope, 0.0], [-slope, 0.0], zero])
    )


def test_first_embeddings_are_small_and_padding_is_zero():
    torch.manual_seed(0)
    model = MFModel(MFConfig(num_users=500, num_items=500))
    for table in (model.user_embedding.weight, model.item_embedding.weight):
        assert not table[0].any()
        assert table[1:].std().item() == pytest.approx(0.01, rel=0.02)
    assert sum(parameter.numel() for parameter in model.parameters()) == 2 * 501 * 64  # no biases


def test_an_unknown_user_is_named():
    model = by_hand()
    with pytest.raises(DataError, match=r"user 'eve' is unknown \(history 1\)"):
        model.recommend([["a"], ["a"]], users=["bob", "eve"])
    with pytest.raises(DataError, match="no user is given"):
        model.recommend([["a"]])


def test_it_learns_and_comes_back_whole(tmp_path):
    split = tiny_split()
    torch.manual_seed(0)
    student = MFModel(MFConfig(num_users=USERS, num_items=ITEMS, hidden_size=8))
    student.set_catalogue(split.catalogue)
    student.set_users(split.users)
    train = SequenceDataset(split.train, ITEMS, users=split.users)
    settings = arguments(tmp_path / "run", num_train_epochs=8, learning_rate=0.05)
    trainer = DistillationTrainer(Distiller(student), settings, train)
    assert trainer.train().training_loss < 0.5 < math.log(2)

    users, histories = list(split.users.item_ids), [split.catalogue.decode(row) for row in split.train["item_ids"]]
    top = student.recommend(histories, k=2, users=users, filter_seen=False)
    hits = [item in history for found, history in zip(top.item_ids, histories, strict=True) for item in found]
    assert sum(hits) / len(hits) > 0.9

    student.save_pretrained(tmp_path / "mf")
    loaded = AutoModel.from_pretrained(tmp_path / "mf")
    assert isinstance(loaded, MFModel) and isinstance(AutoConfig.from_pretrained(tmp_path / "mf"), MFConfig)
    again = loaded.recommend(histories, k=2, users=users, filter_seen=False)
    assert (again.item_ids, again.scores) == (top.item_ids, top.scores)


def test_grows():
    model = by_hand()
    before = model.item_embeddings().clone()
    model.add_items(["d"], torch.tensor([[100.0, 0.0]]))
    assert torch.equal(model.item_embeddings()[:4], before)
    assert model.recommend([["a"]], k=1, users=["ann"]).item_ids == [["d"]]


def test_a_table_without_users_is_refused():
    with pytest.raises((ConfigError, StrictDataclassClassValidationError), match="num_users"):
        MFConfig(num_users=0, num_items=3)

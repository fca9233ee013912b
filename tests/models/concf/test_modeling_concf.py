"""ConCF's model: golden losses, every score by hand, who learns, one head that is kept, files, a falling loss."""

from __future__ import annotations

from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from tests.methods.tiny_rankings import batch_of, dataset, set_split
from tests.models.concf.golden_concf import case_of, clamped_multinomial, model_of, near, pairs_of
from tests.tiny import ITEMS, USERS, arguments
from transformers import AutoModel

from seqkd.distiller import Distiller
from seqkd.errors import ConfigError
from seqkd.models.concf import ConCFConfig, ConCFModel, modeling_concf
from seqkd.models.concf.configuration_concf import HEADS
from seqkd.trainer import DistillationTrainer


def concf(split=None, seed: int = 0, **config) -> ConCFModel:
    torch.manual_seed(seed)
    settings = {"num_items": ITEMS, "num_users": USERS, "hidden_size": 8, "initializer_range": 0.5}
    model = ConCFModel(ConCFConfig(**{**settings, **config}))
    if split is not None:
        model.set_catalogue(split.catalogue)
        model.set_users(split.users)
        model.training_rows(dataset(split))
    return model


def test_golden_losses(golden, monkeypatch):
    """Theirs are sums. Their multinomial adds 1e-12 to a probability, which hides what is less likely."""
    case = case_of(golden)
    model, (users, targets, negatives) = model_of(case["inputs"]), pairs_of(case["inputs"])
    expected = np.ravel(case["expected"]["head_losses_ABCDE_sub_unweighted"])
    losses = torch.stack(model.head_losses(model(users), targets, negatives)) * len(users)
    near(losses[[0, 1, 2, 3, 5]], expected[[0, 1, 2, 3, 5]])
    assert 0.02 < losses[4] - expected[4] < 0.03
    monkeypatch.setattr(modeling_concf, "multinomial", clamped_multinomial)
    near(torch.stack(model.head_losses(model(users), targets, negatives)) * len(users), expected)


@pytest.fixture
def split():
    return set_split()


def by_hand(model, head: str, user: int, item: int) -> float:
    """The score of the spec, section 7.2, in loops over plain lists."""
    net = {name: values.tolist() for name, values in model.heads[head].state_dict().items()}

    def linear(name, x):
        return [
            b + sum(w * v for w, v in zip(row, x, strict=True))
            for row, b in zip(net[f"{name}.weight"], net[f"{name}.bias"], strict=True)
        ]

    def bottom(row):
        return linear("bottom.3", [max(v, 0.0) for v in linear("bottom.0", row)])

    u, i = (bottom(table[row].tolist()) for table, row in ((model.tables[0], user), (model.tables[1], item)))
    if head == "user_multinomial":
        return linear("top", u)[item]
    if head == "item_multinomial":
        return linear("top", i)[user]
    if head in ("cross_entropy", "squared_error"):
        return linear("top", [a * b for a, b in zip(u, i, strict=True)])[0]
    u, i = linear("top", u), linear("top", i)
    if head == "bpr":
        return sum(a * b for a, b in zip(u, i, strict=True))
    u, i = ([v / max(sqrt(sum(x * x for x in point)), 1) for v in point] for point in (u, i))
    return -sum((a - b) ** 2 for a, b in zip(u, i, strict=True))


@pytest.mark.parametrize("head", HEADS)
def test_scores_and_losses_by_hand(head, split):
    model = concf(split, head=head).double().eval()
    batch = batch_of(split, [0, 1, 30, 60, 61], Distiller(model))
    users, targets, negatives = (batch[name] for name in ("user_ids", "targets", "negatives"))
    output = model(users)
    scores = model.score(output.query_embeddings)
    assert scores.shape == (5, ITEMS + 1) and output.query_embeddings.shape[1] == model.embedding_size
    expected = [by_hand(model, head, user, item) for user in users.tolist() for item in range(1, ITEMS + 1)]
    assert scores[:, 1:].flatten().tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)

    def s(user, item):
        return by_hand(model, head, user, item)

    has = {(u + 1, item) for u, row in enumerate(split.train["item_ids"]) for item in row}
    triples = list(zip(users.tolist(), targets.tolist(), negatives[:, 0].tolist(), strict=True))
    if head == "user_multinomial":
        loss = 0.0
        for user in {u for u, _, _ in triples}:
            z = sum(exp(s(user, item)) for item in range(1, ITEMS + 1))
            loss -= sum(log(exp(s(user, item)) / z) for item in range(1, ITEMS + 1) if (user, item) in has)
    elif head == "item_multinomial":
        loss = 0.0
        for item in {i for _, p, n in triples for i in (p, n)}:
            z = sum(exp(s(user, item)) for user in range(1, USERS + 1))
            loss -= sum(log(exp(s(user, item)) / z) for user in range(1, USERS + 1) if (user, item) in has)
    else:
        one = {
            "bpr": lambda p, n: log(1 + exp(n - p)),
            "metric": lambda p, n: max(1 - p + n, 0.0),
            "cross_entropy": lambda p, n: log(1 + exp(-p)) + log(1 + exp(n)),
            "squared_error": lambda p, n: (p - 1) ** 2 + n**2,
        }[head]
        loss = sum(one(s(u, p), s(u, n)) for u, p, n in triples)
    got = model.head_losses(output, targets, negatives)[HEADS.index(head)]
    assert got.item() == pytest.approx(loss / len(triples), rel=1e-9)


def test_the_loss_is_the_weighted_sum_and_is_left_in_the_output(split):
    model = concf(split).double().eval()
    model.head_weights.copy_(torch.tensor([1.0, 2.0, 0.5, 0.5, 1.5, 0.5]))
    batch = batch_of(split, [0, 30, 60], Distiller(model))
    output = model(batch["user_ids"])
    targets = batch["targets"].clone()
    targets[1] = -100
    loss = model.training_loss(output, targets, negatives=batch["negatives"])
    kept = [0, 2]
    losses = torch.stack(model.head_losses(model(batch["user_ids"][kept]), targets[kept], batch["negatives"][kept]))
    near(torch.stack(output.losses), losses.detach())
    near(loss, torch.tensor([1.0, 0.0, 1.0]).double() * (model.head_weights * losses).sum().detach())


@pytest.mark.parametrize("head", HEADS)
def test_gradient_reaches_one_head_and_what_it_reads(head, split):
    model = concf(split).double().eval()
    batch = batch_of(split, [0, 30], Distiller(model))
    losses = model.head_losses(model(batch["user_ids"]), batch["targets"], batch["negatives"])
    losses[HEADS.index(head)].backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    unread = {"user_multinomial": "item_embedding.weight", "item_multinomial": "user_embedding.weight"}.get(head)
    tables = {"user_embedding.weight", "item_embedding.weight"} - {unread}
    own = {name for name, _ in model.named_parameters() if name.startswith(f"heads.{head}.")}
    assert (
        own <= reached | {"heads.bpr.top.bias", "heads.metric.top.bias"}
        and reached <= own | tables
        and tables <= reached
    )
    # a bias that users and items share moves the points of a distance alike
    others = set(range(USERS + 1)) - set(batch["user_ids"].tolist())
    if head != "item_multinomial":
        assert not model.user_embedding.weight.grad[sorted(others)].any()


def test_large_vectors_give_finite_losses(split):
    model = concf(split, initializer_range=1e3)
    batch = batch_of(split, [0, 30], Distiller(model))
    loss = model.training_loss(model(batch["user_ids"]), batch["targets"], negatives=batch["negatives"])
    loss.sum().backward()
    assert loss.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("head", HEADS)
def test_the_head_that_is_kept_scores_as_it_did(head, split, tmp_path):
    model = concf(split).eval()
    kept = model.keep_head(head)
    assert (list(kept.config.heads), kept.config.head, [*kept.heads]) == ([head], head, [head])
    kept.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert isinstance(loaded, ConCFModel) and loaded.config.head == head
    assert loaded.users == split.users and loaded.catalogue == split.catalogue
    users = torch.arange(1, USERS + 1)
    with model.answering(head):
        full = model.score(model(users).query_embeddings)
    assert torch.equal(loaded.score(loaded(users).query_embeddings), full)
    assert model.config.head == "bpr" and loaded.num_parameters() < model.num_parameters()
    names = [f"u{user}" for user in range(3)]
    with model.answering(head):
        told = model.recommend([[]] * 3, users=names, k=4)
    assert told == loaded.recommend([[]] * 3, users=names, k=4)


def test_the_whole_model_saves_its_weights_and_resumes(split, tmp_path):
    model = concf(split).eval()
    model.head_weights.mul_(torch.arange(1, 7))
    model.save_pretrained(tmp_path)
    loaded = ConCFModel.from_pretrained(tmp_path)
    one, other = model.state_dict(), loaded.state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_the_catalogue_grows(split):
    model = concf(split).eval()
    users = torch.arange(1, USERS + 1)
    before = {}
    for head in HEADS:
        with model.answering(head):
            before[head] = model.score(model(users).query_embeddings)
    model.add_items(["new1", "new2"])
    for head in HEADS:
        with model.answering(head):
            after = model.score(model(users).query_embeddings)
        assert after.shape == (USERS, ITEMS + 3)
        torch.testing.assert_close(after[:, : ITEMS + 1], before[head])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": ["bpr", "hinge"]}, "some of"),
        ({"heads": []}, "at least one"),
        ({"heads": ["bpr", "bpr"]}, "each once"),
        ({"heads": ["bpr"], "head": "metric"}, "no head 'metric'"),
        ({"loss_type": "bce"}, "objectives and scores of their own"),
        ({"temperature": 0.5}, "objectives and scores of their own"),
        ({"hidden_size": 3}, "d/4"),
        ({"dropout_prob": 1.0}, "dropout_prob"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        ConCFConfig(**settings)


def test_what_is_missing_is_said(split):
    model = concf()
    batch = batch_of(split, [0, 30], Distiller(model))
    with pytest.raises(ConfigError, match="who has what"):
        model.head_losses(model(batch["user_ids"]), batch["targets"], batch["negatives"])
    with pytest.raises(ConfigError, match="with negatives"):
        model.training_loss(model(batch["user_ids"]), batch["targets"])
    with pytest.raises(ConfigError, match="no head 'seventh'"), model.answering("seventh"):
        pass
    with pytest.raises(ConfigError, match="no head 'seventh'"):
        model.keep_head("seventh")


@pytest.mark.parametrize("heads", [HEADS, HEADS[:1], HEADS[4:5]])
def test_training_lowers_the_loss(heads, split, tmp_path):
    model = concf(split, heads=list(heads), dropout_prob=0.0, hidden_size=16, initializer_range=1.0)
    settings = {"num_train_epochs": 15, "per_device_train_batch_size": 64, "tail_queries": False}
    trainer = DistillationTrainer(Distiller(model), arguments(tmp_path, **settings), dataset(split))
    trainer.train()
    losses = [entry["loss_label"] for entry in trainer.state.log_history if "loss_label" in entry]
    assert losses[-1] < 0.9 * losses[0]

"""Recformer that reads forwards: what a query knows, what learns, new items and domains, the contrast, odd items."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.models.recformer.tiny_recformer import SIZES, tokens_of
from tests.tiny import ITEMS, arguments, parts, tiny_split
from torch import Tensor
from transformers import AutoModel, BertConfig, BertModel

from seqkd.batches.collators import UNLABELLED, Sequence
from seqkd.catalogue import Catalogue
from seqkd.distiller import Distiller
from seqkd.errors import ConfigError, DataError
from seqkd.evaluation.ranks import rank_targets
from seqkd.models.recformer import (
    CausalRecformerConfig,
    CausalRecformerForPretraining,
    CausalRecformerModel,
    EncodeItems,
    ItemTokens,
    causal_recformer,
)
from seqkd.recommenders.recommender import count_items
from seqkd.trainer import DistillationTrainer

CLOSE = {"atol": 1e-5, "rtol": 1e-4}
SILENT = (4, 20)  # items without text; 20 is the last of the catalogue
HISTORIES = [[1, 2, 3, 5], [6], [7, 8], [2, 9, 10, 11, 12, 13], [1, 4, 4, 14], [4, 15]]


def tokens(count: int = ITEMS) -> ItemTokens:
    """Items of one to four tokens; two have none."""
    number = np.arange(1, count + 1)
    return tokens_of(count)._replace(lengths=np.where(np.isin(number, SILENT), 0, number % 4 + 1).astype(np.int32))


def make(cls: type[Any] = CausalRecformerModel, **changes: Any) -> Any:
    torch.manual_seed(0)
    split = tiny_split()
    model = cls(CausalRecformerConfig(**{**SIZES, "num_items": ITEMS, "num_hidden_layers": 2, **changes}))
    for parameter in model.parameters():  # also what starts at nothing
        torch.nn.init.normal_(parameter, std=0.4)
    model.set_item_features(tokens())
    model.set_catalogue(split.catalogue, count_items(split.train, ITEMS))
    return model.eval()


def batch_of(model, histories: list[list[int]], tail: bool = False) -> dict[str, Tensor]:
    return model.collator(tail=tail)([Sequence(np.array(items), 1, 10 * row) for row, items in enumerate(histories)])


def queries(model, batch: dict[str, Tensor]) -> Tensor:
    return model(**{name: batch[name] for name in model.inputs}).query_embeddings


def one_by_one(model, histories: list[list[int]]) -> Tensor:
    return torch.cat([model.encode_histories(torch.tensor([items[::-1]])) for items in histories])


# ---- what a query knows -----------------------------------------------------------------------------------------


@torch.no_grad()
def test_one_pass_answers_every_prefix(monkeypatch):
    model = make()
    batch = batch_of(model, HISTORIES, tail=True)
    assert len(batch["item_ids"]) < len(HISTORIES)  # several in a row
    together = queries(model, batch)
    prefixes = [items[:end] for items in HISTORIES for end in range(1, len(items) + 1)]
    expected = one_by_one(model, prefixes)
    torch.testing.assert_close(together, expected, **CLOSE)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(len(prefixes)))
    padded = torch.tensor([prefix[::-1] + [0] * (6 - len(prefix)) for prefix in prefixes])
    torch.testing.assert_close(model.encode_histories(padded), expected, **CLOSE)
    monkeypatch.setattr(causal_recformer, "TOKENS", 1)  # one row at a time
    torch.testing.assert_close(queries(model, batch), together, **CLOSE)


@torch.no_grad()
def test_a_query_knows_all_that_came_before_and_nothing_newer():
    model, items = make(), [2, 9, 10, 11, 12, 13]
    before = queries(model, batch_of(model, [items], tail=True))
    for changed in range(6):
        other = [*items[:changed], 16, *items[changed + 1 :]]
        apart = (queries(model, batch_of(model, [other], tail=True)) - before).abs().amax(dim=1)
        assert (apart[:changed] < 1e-6).all() and (apart[changed:] > 1e-4).all(), changed


@torch.no_grad()
def test_sequences_of_one_row_do_not_see_each_other():
    model = make()
    first = batch_of(model, [[1, 2, 3], [5, 6, 7]], tail=True)
    second = batch_of(model, [[1, 2, 3], [8, 9, 10]], tail=True)
    assert len(first["item_ids"]) == 1
    one, two = queries(model, first), queries(model, second)
    torch.testing.assert_close(one[:3], two[:3])
    assert ((one[3:] - two[3:]).abs().amax(dim=1) > 1e-4).all()


@torch.no_grad()
def test_the_newest_items_count():
    model = make()
    newest = torch.tensor([[2, 9, 10, 11, 12, 13]])
    longer = torch.cat([newest, torch.tensor([[16, 17]])], dim=1)  # two more than it reads
    torch.testing.assert_close(model.encode_histories(longer), model.encode_histories(newest))
    assert not torch.allclose(model.encode_histories(newest), model.encode_histories(newest.flip(1)), atol=1e-3)


@torch.no_grad()
def test_tail_queries_have_no_label_and_recommend():
    model = make()
    batch = batch_of(model, HISTORIES, tail=True)
    assert (batch["targets"] == UNLABELLED).sum() == len(HISTORIES)
    output = model(**{name: batch[name] for name in model.inputs})
    loss, asked = model.training_loss(output, batch["targets"]), batch["targets"] != UNLABELLED
    assert (loss[asked] > 0).all() and not loss[~asked].any()
    scores = output.query_embeddings[~asked] @ model.item_embeddings().T
    scores[:, 0] = -2
    best = scores.topk(3).indices.tolist()
    asked_for = [[f"item{item}" for item in items] for items in HISTORIES]
    assert model.recommend(asked_for, 3, filter_seen=False).item_ids == [[f"item{i}" for i in row] for row in best]


# ---- starting from a text encoder -------------------------------------------------------------------------------

SHAPE = {"vocab_size": 24, "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 12}


@pytest.mark.parametrize("cls", [CausalRecformerModel, CausalRecformerForPretraining])
@torch.no_grad()
def test_untrained_it_is_its_text_encoder(tmp_path, cls):
    """No [CLS]: the first token of each item stands at the encoder's first position, and sees older items' tokens."""
    torch.manual_seed(0)
    source = BertModel(BertConfig(**SHAPE, max_position_embeddings=24, pad_token_id=0), add_pooling_layer=False).eval()
    for parameter in source.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    source.save_pretrained(tmp_path)
    fields = {"bos_token_id": 2, "mask_token_id": 3, "max_item_length": 4, "max_token_num": 24}
    model = cls.from_text_encoder(tmp_path, num_items=ITEMS, **fields)
    model.set_item_features(tokens())
    text = {item: torch.from_numpy(tokens().input_ids[item - 1, : item % 4 + 1]).long() for item in (3, 6, 9)}

    alone = torch.stack([source(input_ids=ids[None]).last_hidden_state[0].mean(dim=0) for ids in text.values()])
    torch.testing.assert_close(model.encode_histories(torch.tensor([[3], [6], [9]])), F.normalize(alone), **CLOSE)
    torch.testing.assert_close(model.item_embeddings()[[3, 6, 9]], F.normalize(alone), **CLOSE)

    older, newer = text[6], text[9]  # a history of two, by hand
    positions = torch.cat([torch.arange(len(older)), torch.arange(len(newer))])
    item = torch.cat([torch.zeros(len(older)), torch.ones(len(newer))])
    seen = item[:, None] >= item  # (T, T)
    states = source(
        input_ids=torch.cat([older, newer])[None], position_ids=positions[None], attention_mask=seen[None, None]
    ).last_hidden_state[0]
    expected = F.normalize(states[len(older) :].mean(dim=0), dim=0)
    torch.testing.assert_close(model.encode_histories(torch.tensor([[9, 6]]))[0], expected, **CLOSE)


def test_an_item_longer_than_the_table_of_positions_is_refused():
    with pytest.raises(ConfigError, match="max_item_length=39"):
        CausalRecformerConfig(**{**SIZES, "max_item_length": 41, "pad_token_id": 0})


# ---- what items are ranked by -----------------------------------------------------------------------------------


@torch.no_grad()
def test_at_first_items_are_ranked_by_their_texts():
    model = CausalRecformerModel(CausalRecformerConfig(**SIZES, num_items=ITEMS, use_item_embedding=True)).eval()
    model.set_item_features(tokens())
    expected = model.encode_histories(torch.arange(1, ITEMS + 1)[:, None])
    torch.testing.assert_close(model.item_embeddings()[1:], expected)
    assert not model.item_embeddings()[0].any()


@pytest.mark.parametrize("transductive", [False, True])
def test_items_learn_without_the_encoder(transductive):
    model = make(use_item_embedding=transductive)
    ids = torch.tensor([[3, 3], [0, 7]])
    model.encode_items()
    expected = model.item_vectors @ model.ranking.weight.T
    torch.testing.assert_close(model.content_embeddings(ids), F.normalize(expected, dim=-1)[ids])
    if transductive:
        expected = expected + model.item_embedding.weight
    torch.testing.assert_close(model.item_embeddings(), F.normalize(expected, dim=-1))
    torch.testing.assert_close(model.item_embeddings(ids), model.item_embeddings()[ids])

    asked = F.normalize(torch.randn(3, 8), dim=-1)
    model.loss(asked, torch.tensor([1, 4, 9])).sum().backward()
    learned = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learned == {"ranking.weight"} | ({"item_embedding.weight"} if transductive else set())
    assert all(model.get_parameter(name).grad.any() for name in learned)
    assert not transductive or not model.item_embedding.weight.grad[0].any()  # nor does padding


def test_item_vectors_are_made_once(monkeypatch):
    model, made = make(), []
    alone = model._encode_alone
    monkeypatch.setattr(model, "_encode_alone", lambda ids: made.append(len(ids)) or alone(ids))
    first = model.item_embeddings()
    assert torch.equal(model.item_embeddings(), first) and made == [ITEMS]  # though the last item has no text


# ---- files, domains, new items ----------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [CausalRecformerModel, CausalRecformerForPretraining])
@pytest.mark.parametrize("transductive", [False, True])
def test_save_and_load(tmp_path, cls, transductive):
    model = make(cls, use_item_embedding=transductive)
    recommended = model.recommend([["item1", "item2"]], 5)
    model.save_pretrained(tmp_path)
    again = cls.from_pretrained(tmp_path)  # strict: refuses missing and superfluous tensors
    assert type(again) is cls and (again.item_embedding is not None) == transductive
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.recommend([["item1", "item2"]], 5).item_ids == recommended.item_ids
    assert type(AutoModel.from_pretrained(tmp_path)) is CausalRecformerModel


@pytest.mark.parametrize("transductive", [False, True])
def test_for_domain_from_pretraining(transductive):
    model = make(CausalRecformerForPretraining)
    model.encode_items()
    domain = model.for_domain(
        Catalogue("xyz"), tokens(3), torch.tensor([0.0, 1, 2, 3]), use_item_embedding=transductive
    )
    assert type(domain) is CausalRecformerModel and domain.config.loss_type == "softmax"
    assert domain.config.num_items == 3 and not model.config.use_item_embedding
    theirs = dict(model.named_parameters())
    shared = {name: value for name, value in domain.named_parameters() if name != "item_embedding.weight"}
    assert shared.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) and value is not theirs[name] for name, value in shared.items())
    assert (domain.item_embedding is not None) == transductive
    torch.testing.assert_close(domain.item_embeddings(), model.item_embeddings()[:4])  # ids start at nothing
    back = domain.for_domain(Catalogue("xyz"), tokens(3), use_item_embedding=False)
    assert back.item_embedding is None


@pytest.mark.parametrize("transductive", [False, True])
def test_new_items_leave_old_rows_alone(transductive):
    model = make(use_item_embedding=transductive)
    ranked, texts = model.item_embeddings().detach().clone(), model.item_vectors.clone()
    learned = model.item_embedding.weight.detach().clone() if transductive else None
    model.add_items(["new", "newer"], features=tokens().take([4, 6]))
    assert torch.equal(model.item_vectors[: ITEMS + 1], texts)
    torch.testing.assert_close(model.item_vectors[ITEMS + 1 :], texts[[5, 7]])
    assert torch.equal(model.item_embeddings()[: ITEMS + 1], ranked)
    torch.testing.assert_close(model.item_embeddings()[ITEMS + 1 :], model.content_embeddings()[[5, 7]])
    if transductive:
        assert torch.equal(model.item_embedding.weight[: ITEMS + 1], learned)
        assert not model.item_embedding.weight[ITEMS + 1 :].any()
    assert {"new", "newer"} <= set(model.recommend([["item1", "new"]], ITEMS + 2, filter_seen=False).item_ids[0])
    with pytest.raises(DataError, match="already"):
        model.add_items(["new"], features=tokens(1))
    with pytest.raises(ConfigError, match="embeddings"):
        model.add_items(["third"], torch.zeros(1, 8), features=tokens(1))
    rows = {len(model.item_vectors), len(model.item_lengths), len(model.item_counts), model.config.num_items + 1}
    assert rows == {ITEMS + 3} and len(model.item_embeddings()) == ITEMS + 3


# ---- pre-training -----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_contrast_is_a_softmax_over_the_distinct_targets():
    model, targets = make(CausalRecformerForPretraining), torch.tensor([5, 9, 5, 2])
    asked = F.normalize(torch.randn(4, 8), dim=-1)
    items = {item: F.normalize(model.ranking(one_by_one(model, [[item]]))[0], dim=0) for item in (2, 5, 9)}
    for query, target, loss in zip(asked, targets.tolist(), model.loss(asked, targets), strict=True):
        weights = {item: ((query @ vector) / model.config.temperature).exp() for item, vector in items.items()}
        torch.testing.assert_close(loss, -(weights[target] / sum(weights.values())).log(), **CLOSE)


def test_two_micro_batches_contrast_as_one_batch():
    model = make(CausalRecformerForPretraining)
    everything = batch_of(model, HISTORIES, tail=True)["targets"]

    def gradients(groups: list[list[list[int]]]) -> tuple[Tensor, dict[str, Tensor]]:
        model.zero_grad()
        losses = []
        for histories in groups:
            batch = batch_of(model, histories, tail=True)
            output = model(**{name: batch[name] for name in model.inputs})
            losses.append(model.training_loss(output, batch["targets"], everything))
        torch.cat(losses).sum().backward()
        return torch.cat(losses), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    whole, expected = gradients([HISTORIES])
    split, found = gradients([HISTORIES[:1], HISTORIES[1:2], HISTORIES[2:]])  # the second has a tail only
    torch.testing.assert_close(split, whole, **CLOSE)
    assert {"ranking.weight", "encoder.layer.0.output.dense.weight"} <= expected.keys() == found.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-4, rtol=1e-3, msg=name)


def test_the_distiller_trains_by_the_contrast():
    """Not by the softmax over item vectors that stand still, whatever the configuration says."""
    model = make(CausalRecformerForPretraining, loss_type="softmax")
    batch = batch_of(model, HISTORIES)
    expected = model.loss(queries(model, batch), batch["targets"]).mean()
    torch.testing.assert_close(Distiller(model)(**batch)["loss"], expected)


# ---- odd items and numbers --------------------------------------------------------------------------------------


def test_an_item_without_text_is_its_start_token():
    """It has a vector, and a query after it still knows what came before."""
    model = make()
    with torch.no_grad():
        assert torch.equal(model.item_embeddings()[4], model.item_embeddings()[20])
        after = one_by_one(model, [[1, 4], [2, 4], [4], [4, 4]])
        written = tokens()
        written.input_ids[3, 0], written.token_type_ids[3, 0] = model.config.bos_token_id, 0
        model.set_item_features(written._replace(lengths=np.maximum(written.lengths, 1)))
        torch.testing.assert_close(one_by_one(model, [[1, 4], [2, 4], [4], [4, 4]]), after)
    torch.testing.assert_close(after.norm(dim=1), torch.ones(4))
    apart = torch.cdist(after, after) + torch.eye(4)
    assert (apart > 1e-3).all()


@pytest.mark.parametrize("cls", [CausalRecformerModel, CausalRecformerForPretraining])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nothing_to_read_is_no_nan(cls, dtype):
    """Items, targets and whole histories without text, beside padding: values and gradients stay finite."""
    model = make(cls, encoder_dtype=dtype).train()
    batch = batch_of(model, [[4, 20, 4], [1, 4], [4, 2]])
    asked = torch.cat([queries(model, batch), model.encode_histories(torch.tensor([[0, 0], [4, 0]]))])
    loss = model.loss(asked, torch.cat([batch["targets"], torch.tensor([20, 1])]))
    loss.sum().backward()
    assert asked.isfinite().all() and loss.isfinite().all()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and all(gradient.isfinite().all() and gradient.abs().max() < 1e6 for gradient in gradients)


def test_a_batch_without_queries_has_a_gradient_too():
    model = make()
    none = torch.zeros(0, 1, dtype=torch.long)
    for asked in (model(none, none, none, none[:, 0]).query_embeddings, model.encode_histories(none)):
        assert asked.shape == (0, 8)
        asked.sum().backward()


def test_half_precision_is_close():
    exact, half = make(), make(encoder_dtype="bfloat16")
    batch = batch_of(exact, HISTORIES, tail=True)
    rough = queries(half, batch)
    assert rough.dtype == half.item_embeddings().dtype == torch.float32
    torch.testing.assert_close(rough, queries(exact, batch), atol=0.05, rtol=0.05)
    assert (F.cosine_similarity(half.item_embeddings(), exact.item_embeddings())[1:] > 0.995).all()
    rough[:, 0].sum().backward()
    gradient = half.encoder.layer[0].output.dense.weight.grad
    assert gradient.dtype == torch.float32 and gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize("cls", [CausalRecformerModel, CausalRecformerForPretraining])
def test_it_trains_and_evaluates(tmp_path, cls):
    torch.manual_seed(0)
    split = tiny_split()
    model = cls(CausalRecformerConfig(**SIZES, num_items=ITEMS, use_item_embedding=cls is CausalRecformerModel))
    model.set_item_features(tokens())
    model.set_catalogue(split.catalogue, count_items(split.train, ITEMS))
    train, valid = parts(split)
    settings = arguments(tmp_path, num_train_epochs=6, load_best_model_at_end=False)
    trainer = DistillationTrainer(Distiller(model), settings, train, valid, callbacks=[EncodeItems("evaluation")])
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    assert len(rank_targets(model, valid, history="unmasked", depth=10).ranks) == len(valid)

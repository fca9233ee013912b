"""The fields of factorisation machines, their interactions, and the configuration they share."""

from __future__ import annotations

import pytest
import torch
from huggingface_hub.errors import StrictDataclassFieldValidationError
from torch import nn

from seqkd.errors import ConfigError, DataError
from seqkd.modules.factorisation import (
    FieldEmbeddings,
    Side,
    interactions,
    item_columns,
    query_columns,
    xavier_normal,
)
from seqkd.recommenders.field_configuration import FactorisationConfig


def fields(**settings) -> FieldEmbeddings:
    """Tables far from their small initial values, in float64."""
    torch.manual_seed(0)
    made = FieldEmbeddings(4, 6, 3, **{"share_item_table": False, **settings}).double()
    for table in made.children():
        nn.init.normal_(table.weight)
        with torch.no_grad():
            table.weight[0] = 0
    nn.init.normal_(made.bias)
    return made


def test_interactions_are_those_of_all_pairs():
    vectors = torch.randn(5, 4, 3, dtype=torch.float64)
    pairs = sum((vectors[:, f] * vectors[:, g]).sum(1) for f in range(4) for g in range(f))
    torch.testing.assert_close(interactions(vectors), pairs)
    assert not interactions(vectors[:, :1]).any()  # one field has nobody to meet


def test_the_dot_product_of_two_sides_is_the_whole_machine():
    """y = sum w + sum of all pairs of fields (Rendle 2010, eq. 1), the bias among the weights of the query."""
    query = Side(torch.randn(5, 2, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64))
    item = Side(torch.randn(7, 4, 3, dtype=torch.float64), torch.randn(7, dtype=torch.float64))
    scores = query_columns(query) @ item_columns(item).T
    for q in range(5):
        for i in range(7):
            together = torch.cat([query.vectors[q], item.vectors[i]])
            y = query.weights[q] + item.weights[i]
            for f in range(6):
                for g in range(f):
                    y = y + together[f] @ together[g]
            torch.testing.assert_close(scores[q, i], y, rtol=1e-9, atol=1e-12)


def test_a_history_is_the_mean_of_its_vectors_and_the_sum_of_its_weights():
    tables = fields()
    users, histories = torch.tensor([2, 0, 1]), torch.tensor([[3, 5, 3], [0, 0, 0], [0, 4, 0]])
    side = tables.query_side(users, histories)
    vectors, weights = tables.history.weight, tables.history_weight.weight[:, 0]
    mean = (2 * vectors[3] + vectors[5]) / 3
    torch.testing.assert_close(side.vectors[:, 0], torch.stack([mean, torch.zeros(3), vectors[4]]).double())
    bought = torch.stack([2 * weights[3] + weights[5], torch.zeros(()), weights[4]]).double()
    torch.testing.assert_close(side.weights, tables.bias + bought + tables.user_weight.weight[users, 0])
    assert torch.equal(side.vectors[:, 1], tables.user.weight[users])
    assert not side.vectors[1].any()  # the unknown user without a history
    assert side.weights[1] == tables.bias


def test_a_history_may_read_the_items_own_vectors():
    tables = fields(share_item_table=True)
    assert tables.history is None
    side = tables.query_side(torch.tensor([1]), torch.tensor([[2, 4]]))
    torch.testing.assert_close(side.vectors[0, 0], tables.item.weight[[2, 4]].mean(0))
    assert side.weights[0] == tables.bias + tables.history_weight.weight[[2, 4]].sum() + tables.user_weight.weight[1]


def test_attributes_are_fields_of_their_item():
    tables = fields(num_attributes=5, num_attribute_fields=2)
    tables.set_item_attributes(torch.tensor([[1, 4], [2, 0], [0, 0], [3, 5], [1, 5], [2, 4]]))
    whole = tables.item_side()
    assert whole.vectors.shape == (7, 3, 3)
    assert torch.equal(whole.vectors[4, 0], tables.item.weight[4])
    assert torch.equal(whole.vectors[4, 1:], tables.attribute.weight[[3, 5]])
    assert not whole.vectors[3, 1:].any()
    assert whole.weights[2] == tables.item_weight.weight[2] + tables.attribute_weight.weight[2]
    ids = torch.tensor([[4, 2], [0, 6]])
    some = tables.item_side(ids)
    assert torch.equal(some.vectors, whole.vectors[ids])
    torch.testing.assert_close(some.weights, whole.weights[ids])


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        (torch.zeros(5, 2, dtype=torch.long), r"shape \(6, 2\).*\(5, 2\)"),
        (torch.zeros(6, 2), "whole numbers"),
        (torch.tensor([[0, 0]] * 5 + [[0, 6]]), r"row 5, column 1: 6 is outside 0\.\.5"),
        (torch.tensor([[-1, 0]] * 6), "row 0, column 0: -1"),
    ],
)
def test_wrong_attributes_are_refused(attributes, problem):
    tables = fields(num_attributes=5, num_attribute_fields=2)
    with pytest.raises(DataError, match=problem):
        tables.set_item_attributes(attributes)
    assert not tables.item_attributes.any()


def test_attributes_need_a_table():
    with pytest.raises(ConfigError, match="num_attributes"):
        fields().set_item_attributes(torch.zeros(6, 1, dtype=torch.long))


def test_padding_gets_no_gradient():
    tables = fields(num_attributes=5, num_attribute_fields=2)
    tables.set_item_attributes(torch.tensor([[1, 0]] * 6))
    query = tables.query_side(torch.tensor([0, 1]), torch.tensor([[3, 0], [0, 0]]))
    item = tables.item_side(torch.tensor([0, 3]))
    (query.alone + item.alone + query.vectors.sum((1, 2)) + item.vectors.sum((1, 2))).sum().backward()
    for name, table in tables.named_children():
        assert table.weight.grad.any(), name
        assert not table.weight.grad[0].any(), name


def test_initial_tables_are_recboles():
    """Xavier-normal over (rows, D): std = sqrt(2 / (rows + D)); padding 0."""
    torch.manual_seed(0)
    tables = FieldEmbeddings(999, 1999, 50, share_item_table=False)
    tables.apply(xavier_normal)
    assert tables.item.weight[1:].std().item() == pytest.approx((2 / 2050) ** 0.5, rel=0.02)
    assert tables.user.weight[1:].std().item() == pytest.approx((2 / 1050) ** 0.5, rel=0.02)
    assert tables.item_weight.weight[1:].std().item() == pytest.approx((2 / 2001) ** 0.5, rel=0.1)
    assert not tables.bias.any()
    assert not any(table.weight[0].any() for table in tables.children())


# ---- configuration ------------------------------------------------------------------------------------------------


def test_the_window_is_the_longest_history():
    config = FactorisationConfig(history_window=7)
    assert config.history_window == config.max_position_embeddings == 7
    assert FactorisationConfig().history_window == 50
    assert FactorisationConfig(**config.to_dict()).history_window == 7


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"similarity": "cosine"}, 'similarity must be "dot"'),
        ({"num_attributes": -1}, "num_attributes must be at least 0"),
        ({"num_attributes": 3}, "Give both, or neither"),
        ({"num_attribute_fields": 3}, "Give both, or neither"),
        ({"history_window": 0}, "max_position_embeddings must be at least 1"),
        ({"num_users": 0}, "num_users"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(settings, problem):
    with pytest.raises(ConfigError, match=problem):
        FactorisationConfig(**settings)


def test_the_kinds_of_settings_are_checked():
    with pytest.raises(StrictDataclassFieldValidationError, match="share_item_table"):
        FactorisationConfig(share_item_table="yes")

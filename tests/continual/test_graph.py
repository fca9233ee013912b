"""Which edges stay when a block comes, and what they count."""

from __future__ import annotations

import pytest
import torch

from seqkd.continual.graph import renew_edges
from seqkd.errors import ConfigError
from seqkd.models.lightgcn import LightGCNConfig, LightGCNModel
from seqkd.models.multvae import MultVAEConfig, MultVAEModel

OLD = torch.tensor([[1, 1, 2], [1, 2, 3]])
NEW = torch.tensor([[2, 3], [3, 4]])  # (2, 3) is there already


def lightgcn():
    torch.manual_seed(0)
    return LightGCNModel(LightGCNConfig(num_users=3, num_items=4, hidden_size=4), OLD)


def test_a_block_replaces():
    model = lightgcn()
    renew_edges(model, NEW, "block")
    assert model.edges.tolist() == NEW.tolist() and model.edge_weights is None


def test_cumulative_is_the_default_and_keeps_each_edge_once():
    model = lightgcn()
    renew_edges(model, NEW)
    assert model.edges.tolist() == [[1, 1, 2, 3], [1, 2, 3, 4]] and model.edge_weights is None


def test_decay_halves_what_is_not_repeated_block_after_block():
    model = lightgcn()
    renew_edges(model, NEW, "decayed")
    assert model.edge_weights.tolist() == [0.5, 0.5, 1.0, 1.0]
    renew_edges(model, torch.tensor([[1], [2]]), "decayed", decay=0.2)
    torch.testing.assert_close(model.edge_weights, torch.tensor([0.1, 1.0, 0.2, 0.2]))
    assert model.config.weighted_edges and model.config.num_edges == 4


def test_a_decayed_graph_is_saved_with_the_model(tmp_path):
    model = lightgcn()
    renew_edges(model, NEW, "decayed")
    model.eval().save_pretrained(tmp_path)
    loaded = LightGCNModel.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded.edge_weights, model.edge_weights)
    assert torch.equal(loaded.item_embeddings(), model.item_embeddings())


def test_after_a_decayed_graph_comes_one_without_weights(tmp_path):
    model = lightgcn()
    renew_edges(model, NEW, "decayed")
    renew_edges(model, NEW, "block")
    model.save_pretrained(tmp_path)
    assert LightGCNModel.from_pretrained(tmp_path).edge_weights is None


def test_an_autoencoder_keeps_edges_but_cannot_weigh_them():
    model = MultVAEModel(MultVAEConfig(num_users=3, num_items=4, hidden_size=4, latent_size=2), OLD)
    with pytest.raises(ConfigError, match="counts every interaction alike"):
        renew_edges(model, NEW, "decayed")
    renew_edges(model, NEW)
    assert model.edges.shape == (2, 4)


@pytest.mark.parametrize(("policy", "decay", "message"), [("all", 0.5, "'all'"), ("decayed", 1.0, "between 0 and 1")])
def test_wrong_settings_are_refused(policy, decay, message):
    with pytest.raises(ConfigError, match=message):
        renew_edges(lightgcn(), NEW, policy, decay=decay)

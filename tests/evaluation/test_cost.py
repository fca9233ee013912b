"""Parameters and megabytes by hand; latency is a positive number measured on one thread."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from seqkd.catalogue import Catalogue
from seqkd.errors import ConfigError, DataError
from seqkd.evaluation.cost import measure_cost
from seqkd.models.mf import MFConfig, MFModel
from seqkd.models.sasrec import SASRecConfig, SASRecModel


@pytest.fixture
def model():
    config = SASRecConfig(
        num_items=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=16,
        max_position_embeddings=5,
    )
    model = SASRecModel(config)
    model.set_catalogue(Catalogue([f"i{n}" for n in range(20)]))
    return model


def test_cost(model, tmp_path):
    threads, seen = torch.get_num_threads(), []
    plain = model.recommend
    model.recommend = lambda histories, k, batch_size: (
        seen.append((len(histories), k, batch_size, torch.get_num_threads()))
        or plain(histories, k, batch_size=batch_size)
    )
    cost = measure_cost(model, [["i1", "i2"], ["i3"]], repeats=2)
    assert seen == [(256, 10, 256, 1)] * 3 and torch.get_num_threads() == threads
    # items 21 x 8, positions 5 x 8, norm 16; attention 4 x (64 + 8), feed-forward 8*16+16 + 16*8+8, two norms 32
    assert cost.parameters == 168 + 40 + 16 + 288 + 280 + 32
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    assert cost.megabytes == file.stat().st_size / 1e6
    assert sum(tensor.numel() for tensor in load_file(file).values()) == cost.parameters + 21  # and the item counts
    assert 0 < cost.ms_per_user < 1000


def test_models_that_know_users_are_given_theirs():
    """MF answers for nobody else."""
    mf = MFModel(MFConfig(num_items=20, num_users=2, hidden_size=4))
    mf.set_catalogue(Catalogue([f"i{n}" for n in range(20)]))
    mf.set_users(Catalogue(["anne", "bob"]))
    assert measure_cost(mf, [["i1", "i2"], ["i3"]], repeats=1, users=["anne", "bob"]).parameters == 21 * 4 + 3 * 4
    with pytest.raises(DataError, match="no user is given"):
        measure_cost(mf, [["i1"]], repeats=1)


def test_users_are_no_matter_to_models_that_know_none(model):
    assert measure_cost(model, [["i1"]], repeats=1, users=["anne"]).ms_per_user > 0


def test_nothing_to_measure(model):
    with pytest.raises(ConfigError, match="needs a history"):
        measure_cost(model, [])

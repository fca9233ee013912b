"""The authors' checkpoints become ours; what is no UniSRec, or is more than it says, is refused."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from seqkd.catalogue import Catalogue
from seqkd.errors import CheckpointError
from seqkd.models.unisrec import UniSRecConfig, UniSRecModel, convert
from seqkd.models.unisrec.convert_unisrec import to_authors


class Bomb:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


class Config:
    """Stands for RecBole's class: an object with a dict of settings."""

    def __init__(self, settings: dict) -> None:
        self.final_config_dict = settings


def authors_state(**changes) -> OrderedDict[str, Tensor]:
    torch.manual_seed(0)
    sizes = {"num_items": 4, "hidden_size": 8, "max_position_embeddings": 5, "plm_size": 6, "intermediate_size": 7}
    model = UniSRecModel(UniSRecConfig(**(sizes | {"num_experts": 3, "num_attention_heads": 4} | changes)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    model.item_features[1:] = torch.randn(4, 6)
    return OrderedDict(to_authors({name: value.detach() for name, value in model.state_dict().items()}))


def save(folder: Path, state: dict, config: object = None) -> Path:
    torch.save({"config": config, "epoch": 1, "state_dict": state, "optimizer": {"state": {}}}, folder / "a.pth")
    return folder / "a.pth"


@pytest.mark.parametrize("transductive", [False, True])
def test_a_fine_tuned_checkpoint_becomes_a_model(tmp_path, transductive):
    state = authors_state(use_item_embedding=transductive)
    config = Config({"n_heads": 4, "temperature": 0.1, "hidden_dropout_prob": 0.25, "device": torch.device("cpu")})
    model = convert(save(tmp_path, state, config), tmp_path / "out")
    assert model.config.num_attention_heads == 4 and model.config.temperature == 0.1
    assert model.config.hidden_dropout_prob == 0.25 and model.config.use_item_embedding == transductive
    loaded = UniSRecModel.from_pretrained(tmp_path / "out")
    theirs = to_authors(loaded.state_dict())
    assert theirs.keys() == state.keys() and all(torch.equal(theirs[name], state[name]) for name in state)
    assert sorted(os.listdir(tmp_path / "out")) == ["config.json", "model.safetensors"]


def test_a_pretrained_checkpoint_waits_for_a_domain(tmp_path):
    state = authors_state()
    del state["plm_embedding.weight"]
    model = convert(save(tmp_path, state), tmp_path / "out", num_attention_heads=4)
    assert model.config.num_items == 1 and model.config.num_attention_heads == 4
    domain = model.for_domain(Catalogue("abc"), torch.randn(3, 6))
    assert len(domain.recommend([["a", "b"]], 1).item_ids[0]) == 1


def test_a_malicious_checkpoint_is_not_run(tmp_path):
    marker = tmp_path / "marker"
    path = save(tmp_path, authors_state(), Bomb(f"touch {marker}"))
    convert(path, tmp_path / "out")
    assert not marker.exists() and (tmp_path / "out" / "model.safetensors").exists()


def test_a_cut_checkpoint_is_refused(tmp_path):
    path = save(tmp_path, authors_state())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="cut"):
        convert(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_flipped_bit_in_a_tensor_is_refused(tmp_path):
    state = authors_state()
    path = save(tmp_path, state)
    content = bytearray(path.read_bytes())
    at = content.index(state["position_embedding.weight"].numpy().tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="CRC"):
        convert(path, tmp_path / "out")


def without(name: str) -> dict[str, Tensor]:
    state = authors_state()
    del state[name]
    return state


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"item_embedding.weight": torch.ones(3, 2)}, r"position_embedding\.weight"),
        (without("LayerNorm.bias"), r"LayerNorm\.bias is missing"),
        (without("trm_encoder.layer.1.feed_forward.dense_1.bias"), "missing"),
        (authors_state() | {"lm_head.weight": torch.ones(2)}, "no such tensor"),
        (authors_state() | {"LayerNorm.bias": torch.ones(9)}, r"\(9,\), expected \(8,\)"),
        (authors_state() | {"LayerNorm.bias": torch.ones(0)}, "no empty tensors"),
        (authors_state() | {"moe_adaptor.w_gate": torch.ones(1).expand(10**9, 3)}, "bytes of tensors"),
        (authors_state() | {"trm_encoder.layer.999999999.x": torch.ones(1)}, "numbered"),
        ("text", "no 'state_dict'"),
    ],
)
def test_another_models_checkpoint_is_refused(tmp_path, state, message):
    with pytest.raises(CheckpointError, match=message):
        convert(save(tmp_path, state), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_impossible_settings_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="settings"):
        convert(save(tmp_path, authors_state(), Config({"n_heads": 3})), tmp_path / "out")
    with pytest.raises(CheckpointError, match="settings"):
        convert(save(tmp_path, authors_state(), Config({"n_heads": "two"})), tmp_path / "out")

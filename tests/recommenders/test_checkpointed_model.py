"""Files are whole or refused: weights, configuration and ids."""

from __future__ import annotations

import json
import os

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from seqkd.catalogue import Catalogue
from seqkd.errors import CheckpointError, ConfigError, DataError
from seqkd.models.sasrec import SASRecConfig, SASRecModel

ITEMS = [f"B{i:02d}" for i in range(1, 11)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = SASRecConfig(num_items=10, hidden_size=8, intermediate_size=16, max_position_embeddings=4)
    model = SASRecModel(config).eval()
    model.set_catalogue(Catalogue(ITEMS))
    return model


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path)
    return tmp_path


def edit_weights(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    os.remove(path)
    save_file(weights, path, metadata={"format": "pt"})


def edit_json(path, change):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content)))


def test_a_folder_holds_plain_files_only(folder, model):
    assert sorted(os.listdir(folder)) == ["config.json", "item_ids.json", "model.safetensors"]
    loaded, info = AutoModel.from_pretrained(folder, output_loading_info=True)
    assert loaded.item_ids == model.item_ids and not info["missing_keys"]


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_cut_weights_are_refused(folder, keep):
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        AutoModel.from_pretrained(folder)


def test_a_missing_tensor_is_refused(folder):
    edit_weights(folder, lambda weights: weights.pop("encoder.layers.1.feed_forward.dense_2.bias"))
    with pytest.raises(CheckpointError, match=r"missing keys.*dense_2\.bias"):
        AutoModel.from_pretrained(folder)


def test_a_superfluous_tensor_is_refused(folder):
    edit_weights(folder, lambda weights: weights.update(stranger=torch.zeros(1)))
    with pytest.raises(CheckpointError, match=r"unexpected keys.*stranger"):
        AutoModel.from_pretrained(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_loaded_nor_saved(folder, model, value):
    edit_weights(folder, lambda weights: weights["item_embedding.weight"][3].fill_(value))
    with pytest.raises(CheckpointError, match=r"item_embedding\.weight holds NaN"):
        AutoModel.from_pretrained(folder)
    with torch.no_grad():
        model.item_embedding.weight[3] = value
    with pytest.raises(CheckpointError, match="is not saved"):
        model.save_pretrained(folder / "again")
    assert not (folder / "again").exists()


def test_another_number_of_items_in_the_config_is_refused(folder):
    edit_json(folder / "config.json", lambda config: {**config, "num_items": 25})
    with pytest.raises(CheckpointError, match=r"mismatched keys.*item_embedding.*\[11, 8\].*\[26, 8\]"):
        AutoModel.from_pretrained(folder)


def test_another_number_of_ids_is_refused(folder):
    edit_json(folder / "item_ids.json", lambda items: items[:-1])
    with pytest.raises(CheckpointError, match=r"lists 9 items.*num_items=10"):
        AutoModel.from_pretrained(folder)


@pytest.mark.parametrize("content", ["", "[", "{}", "[1, 2]", '["a", "a"]', "\x00"])
def test_a_damaged_id_list_is_refused(folder, content):
    (folder / "item_ids.json").write_text(content)
    with pytest.raises((CheckpointError, DataError)):
        AutoModel.from_pretrained(folder)


def test_without_an_id_list_the_model_loads_but_knows_no_ids(folder):
    (folder / "item_ids.json").unlink()
    loaded = AutoModel.from_pretrained(folder)
    with pytest.raises(ConfigError, match="set_catalogue"):
        loaded.recommend([["B01"]])


def test_an_impossible_config_is_refused(folder):
    edit_json(folder / "config.json", lambda config: {**config, "num_items": -3})
    with pytest.raises((ConfigError, StrictDataclassClassValidationError), match="num_items"):
        AutoModel.from_pretrained(folder)


def test_a_pickle_is_never_opened(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    with pytest.raises(OSError, match="safetensors"):
        AutoModel.from_pretrained(folder)
    assert not os.path.exists("owned")


def test_a_configuration_that_could_not_be_read_again_is_not_saved(model, tmp_path):
    model.config.hiden_size = 4
    with pytest.raises(ConfigError, match=r"no field 'hiden_size'.*Did you mean 'hidden_size'"):
        model.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again").exists()

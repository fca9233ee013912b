from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from seqkd.errors import CheckpointError, ConfigError
from seqkd.files import model_folder
from seqkd.files.model_folder import config_of
from seqkd.models.sasrec import SASRecConfig


@pytest.fixture
def saved(tmp_path) -> Path:
    SASRecConfig(num_items=3, hidden_size=8).save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "model.safetensors").touch()
    return tmp_path / "saved"


def test_it_reads_what_was_saved(saved):
    config = config_of(saved)
    assert isinstance(config, SASRecConfig) and (config.num_items, config.hidden_size) == (3, 8)
    assert config_of(str(saved)).to_dict() == config.to_dict()


def test_models_that_lie_inside_are_named(saved, tmp_path):
    with pytest.raises(CheckpointError, match=r"it has no config.json. Did you mean .*saved\?"):
        config_of(tmp_path)
    shutil.copytree(saved, tmp_path / "another")
    SASRecConfig(num_items=3).save_pretrained(tmp_path / "bare")  # no weights
    (tmp_path / "log").mkdir()
    with pytest.raises(CheckpointError) as refused:
        config_of(tmp_path)
    assert f"Did you mean {tmp_path / 'another'} or {saved}?" in str(refused.value)
    with pytest.raises(CheckpointError, match=r"bare is not the folder of a model: it has no weights"):
        config_of(tmp_path / "bare")


def test_a_name_that_is_not_there_is_looked_for_beside_it(saved, tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no savd in .*, which holds \['saved'\]"):
        config_of(tmp_path / "savd")


@pytest.mark.parametrize("name", ["nowhere", "user/nowhere", "no where", "a/b/c"])
def test_a_name_of_nothing_is_told_in_a_line(name):
    with pytest.raises(CheckpointError) as refused:
        config_of(name)
    assert "\n" not in str(refused.value) and "user/name" in str(refused.value)


def test_offline_is_said_to_be_offline_and_online_the_hub_s_reason_is_told(monkeypatch):
    with pytest.raises(CheckpointError, match=r"\(HF_HUB_OFFLINE is set: cached ones only\)"):
        config_of("user/nowhere")
    monkeypatch.setattr(model_folder, "is_offline_mode", lambda: False)

    def refuse(*_, **__):
        raise OSError("user/nowhere is no such repository.\nMore about that.")

    monkeypatch.setattr(model_folder.AutoConfig, "from_pretrained", refuse)
    with pytest.raises(
        CheckpointError, match=r"no such model of the Hub \(user/nowhere is no such repository\.\)\. Give"
    ):
        config_of("user/nowhere")


def test_a_field_that_does_not_fit_is_told_by_its_file(saved):
    told = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**told, "num_items": "three"}))
    with pytest.raises(CheckpointError, match=r"config.json cannot be used: .*'num_items'") as refused:
        config_of(saved)
    assert "\n" not in str(refused.value)
    (saved / "config.json").write_text(json.dumps({**told, "hiden_size": 3}))
    with pytest.raises(ConfigError, match="'hiden_size'"):  # as ever
        config_of(saved)

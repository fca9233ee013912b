"""A name that is no field is refused, whoever gives it: the caller, or a config.json."""

from __future__ import annotations

import copy
import json
from dataclasses import fields

import pytest
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

import seqkd  # noqa: F401 - registers every model
from seqkd.errors import ConfigError
from seqkd.models.fm import FMConfig
from seqkd.models.mf import MFConfig, MFModel
from seqkd.models.unim2rec import UniM2RecConfig
from seqkd.recommenders.configuration import RecommenderConfig

KINDS = [CONFIG_MAPPING[name] for name in CONFIG_MAPPING if name.startswith("seqkd_")]


def names(kind):
    return [item.name for item in fields(kind)]


def write(folder, **more):
    """A folder with a config.json that says `more`."""
    MFConfig(num_items=7).save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))


# ---- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RecommenderConfig, *KINDS])
def test_a_misspelt_field_is_refused_with_the_right_one(kind):
    ours = set(names(kind)) - set(names(PreTrainedConfig))
    for name in sorted(ours - {"heads"}):  # without its last letter it is another field
        with pytest.raises(ConfigError, match=rf"{kind.__name__} has no field '{name[:-1]}'.* Did you mean '{name}'\?"):
            kind(**{name[:-1]: getattr(kind(), name)})


def test_what_is_like_no_field_is_refused_too():
    with pytest.raises(ConfigError, match=r"MFConfig has no field 'graph' in this version of seqkd\. Leave it out"):
        MFConfig(graph=1)


def test_a_field_of_another_model_is_refused():
    with pytest.raises(ConfigError, match="MFConfig has no field 'num_attention_heads'"):
        MFConfig(num_attention_heads=2)


@pytest.mark.parametrize("name", ["check", "losses", "to_dict"])
def test_what_is_no_field_but_an_attribute_is_refused(name):
    with pytest.raises(ConfigError, match=f"has no field '{name}'"):
        MFConfig(**{name: None})


def test_the_name_is_told_before_what_follows_from_it():
    with pytest.raises(ConfigError, match="no field 'modalites'"):
        UniM2RecConfig(modalites=["text"], modality_sizes={"text": 4})


def test_another_name_of_a_field_is_known():
    assert FMConfig(history_window=3).max_position_embeddings == 3
    with pytest.raises(ConfigError, match="Did you mean 'history_window'"):
        FMConfig(histry_window=3)


# ---- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_configuration_comes_back_from_its_file(kind, tmp_path):
    config = kind(num_items=7, initializer_range=0.3)
    config.save_pretrained(tmp_path)
    for back in (kind.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path), kind(**config.to_dict())):
        assert type(back) is kind
        assert back.to_dict() == {**config.to_dict(), "_name_or_path": back.name_or_path}
        assert copy.deepcopy(back) == back


@pytest.mark.parametrize("kind", KINDS)
def test_what_transformers_writes_is_accepted(kind, tmp_path):
    theirs = {
        **PreTrainedConfig(dtype="float32", problem_type="regression").to_dict(),
        **{"max_length": 9, "num_beams": 2, "top_k": 5, "num_beam_groups": 1, "use_cache": False},  # once part of it
        "attn_implementation": "eager",
        "auto_map": {"AutoConfig": "code.Config"},
        "experts_implementation": "eager",
        "gradient_checkpointing": False,
        "num_labels": 2,
        "quantization_config": {"quant_method": "none"},
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "_an_internal": 1,
    }
    back = kind.from_dict({**theirs, **kind().to_dict()}, attn_implementation="sdpa", dtype="float32")
    assert not {"num_beams", "torch_dtype"} & vars(back).keys()
    back.save_pretrained(tmp_path)
    assert kind.from_pretrained(tmp_path).to_dict() == back.to_dict()


def test_a_trained_model_comes_back(tmp_path):
    model = MFModel(MFConfig(num_items=3, num_users=2, hidden_size=2))
    model.config.use_cache, model.config.eos_token_id = False, 2  # as the Trainer of transformers does
    model.save_pretrained(tmp_path)
    assert "use_cache" in (tmp_path / "config.json").read_text()
    assert AutoModel.from_pretrained(tmp_path).config.num_users == 2


@pytest.mark.parametrize("load", [MFConfig, MFModel, AutoConfig, AutoModel])
def test_a_field_of_a_later_version_is_refused_and_the_file_named(load, tmp_path):
    write(tmp_path, popularity_prior=0.5)
    where = f"{tmp_path}: " if load in (AutoConfig, AutoModel) else ""
    with pytest.raises(ConfigError) as told:
        load.from_pretrained(tmp_path)
    assert str(told.value) == (
        f"{where}config.json: MFConfig has no field 'popularity_prior' in this version of seqkd. "
        "Leave it out, or update seqkd if a later one wrote it."
    )


def test_a_value_out_of_range_is_refused_and_the_file_named(tmp_path):
    write(tmp_path, num_users=0)
    with pytest.raises(ConfigError, match=r"config\.json: num_users must be at least 1, got 0"):
        MFConfig.from_pretrained(tmp_path)

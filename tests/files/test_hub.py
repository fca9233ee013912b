"""What reaches the Hub: exactly a model's files, no pickle, no training state, no token; offline one clear error."""

from __future__ import annotations

import json
import socket
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, ModelCard, ModelCardData
from huggingface_hub.errors import OfflineModeIsEnabled
from transformers import PreTrainedModel

from seqkd.cards.model_card import write_card
from seqkd.catalogue import Catalogue
from seqkd.errors import CheckpointError, ConfigError, SeqKDError
from seqkd.evaluation.results import Result
from seqkd.files import hub
from seqkd.models.sasrec import SASRecConfig, SASRecModel

TOKEN = "hf_" + "AbCdEfGhIj" * 4
FILES = [".eval_results/00-scientific.yaml", "README.md", "config.json", "item_ids.json", "model.safetensors"]


@pytest.fixture
def model():
    config = SASRecConfig(num_items=3, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    model = SASRecModel(config)
    model.set_catalogue(Catalogue(["a", "b", "c"]))
    return model


@pytest.fixture
def folder(model, tmp_path):
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    size = sum(parameter.numel() for parameter in model.parameters())
    result = Result(
        "CKD", "distilled", "Scientific", "data", 0, "test", "loo", "masked", {"ndcg@10": 0.1}, 9, 9, size, 1, 1
    )
    write_card(folder, model=model, name="CKD", seed=0, results=[result])
    return folder


@pytest.fixture
def commits(monkeypatch):
    """The Hub, as far as it is needed: what would be committed, and the repositories and branches made."""
    calls = []

    def create_repo(self, repo_id, **kwargs):
        calls.append(("repo", repo_id, kwargs.get("private"), kwargs.get("token", self.token)))
        return SimpleNamespace(repo_id=repo_id)

    def create_commit(self, repo_id, operations, **kwargs):
        calls.append(
            ("commit", repo_id, sorted(operation.path_in_repo for operation in operations), kwargs.get("revision"))
        )
        return SimpleNamespace(commit_url="https://hub/commit/1")

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    monkeypatch.setattr("huggingface_hub.hf_api.is_xet_available", lambda: False)  # so that create_commit gets it all
    monkeypatch.setattr(
        HfApi, "create_branch", lambda self, repo_id, branch, **_: calls.append(("branch", repo_id, branch))
    )
    monkeypatch.setattr(
        HfApi, "list_repo_files", lambda self, repo_id, **_: ["model-00002-of-00002.safetensors", "notes.md"]
    )
    monkeypatch.setattr(
        HfApi, "_validate_yaml", lambda self, content, **_: calls.append(("card", "library_name: seqkd" in content))
    )
    monkeypatch.setattr(hub, "is_offline_mode", lambda: False)
    return calls


def test_push_uploads_the_model_and_nothing_else(folder, commits):
    (folder / "seqkd_manifest.json").write_text("{}")
    (folder / "runs").mkdir()
    (folder / "runs" / "events.txt").write_text("loss")
    assert hub.push(folder, "me/tiny", token=TOKEN) == "https://hub/commit/1"
    stale = "model-00002-of-00002.safetensors"  # deleted: it belonged to an earlier, larger model
    assert commits == [
        ("repo", "me/tiny", True, TOKEN),
        ("card", True),
        ("commit", "me/tiny", sorted([*FILES, stale]), None),
    ]


def test_push_to_a_branch_in_public(folder, commits):
    hub.push(folder, "me/tiny", private=False, revision="v1")
    assert commits[0][2] is False and commits[1] == ("branch", "me/tiny", "v1") and commits[-1][3] == "v1"


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "training_args.bin",
        "optimizer.pt",
        "checkpoint-3/scheduler.pt",
        "checkpoint-3/rng_state.pth",
        "trainer_state.json",
        "methods.safetensors",
        "items.pkl",
        "features.NPY",
        ".env",
    ],
)
def test_pickles_and_training_state_are_refused(folder, commits, name):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match=f"{name.replace('.', '[.]')} is a pickle or belongs to training"):
        hub.push(folder, "me/tiny")
    assert commits == []


@pytest.mark.parametrize("name", ["config.json", "item_ids.json", "README.md", "model.safetensors"])
def test_unfinished_folders_are_refused(folder, commits, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"no {name}"):
        hub.push(folder, "me/tiny")
    assert commits == []


def test_damaged_weights_and_links_are_refused(folder, tmp_path, commits):
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-7])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        hub.push(folder, "me/tiny")
    weights.unlink()
    (tmp_path / "elsewhere").write_bytes(whole)
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a link"):
        hub.push(folder, "me/tiny")
    with pytest.raises(CheckpointError, match="is no folder"):
        hub.push(tmp_path / "nowhere", "me/tiny")
    assert commits == []


@pytest.mark.parametrize("name", ["../secret/model.safetensors", "/etc/model.safetensors", "C:\\model.safetensors", 7])
def test_shards_outside_the_folder_are_refused(folder, name):
    (folder / hub.INDEX).write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(CheckpointError, match="outside the folder"):
        hub.check_folder(folder)


def test_shards_are_checked_and_pushed(model, folder, commits):
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="1KB")
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(shards) > 1
    hub.push(folder, "me/tiny")
    assert set(shards) | {hub.INDEX} <= set(commits[-1][2])
    (folder / shards[1]).unlink()
    with pytest.raises(CheckpointError, match=f"has no {shards[1]}"):
        hub.push(folder, "me/tiny")
    (folder / hub.INDEX).write_text("{}")
    with pytest.raises(CheckpointError, match="is damaged"):
        hub.push(folder, "me/tiny")


def test_a_token_never_reaches_a_file_nor_the_hub(model, folder, commits, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.push(folder, "me/tiny", token=TOKEN)
    for path in folder.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()
    (folder / "config.json").write_text(json.dumps({"hub_token": TOKEN}))
    with pytest.raises(CheckpointError, match=r"config\.json holds an access token") as error:
        hub.push(folder, "me/tiny")
    assert TOKEN not in str(error.value)
    model.config.save_pretrained(folder)
    (folder / ".eval_results" / "00-scientific.yaml").write_text("notes: my-own-secret")
    with pytest.raises(CheckpointError, match="holds an access token"):
        hub.push(folder, "me/tiny", token="my-own-secret")


def test_offline_is_one_clear_error(folder, monkeypatch):
    monkeypatch.setattr(hub, "is_offline_mode", lambda: True)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a socket was opened"))
    with pytest.raises(ConfigError, match=r"HF_HUB_OFFLINE=1 is set, so .* is not pushed to me/tiny"):
        hub.push(folder, "me/tiny")


def test_errors_of_the_hub_are_told_without_the_token(folder, commits, monkeypatch):
    def refuse(*_, **__):
        raise OfflineModeIsEnabled(f"401 for {TOKEN}\nmore")

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(SeqKDError, match="was not pushed to me/tiny: 401 for <token>") as error:
        hub.push(folder, "me/tiny", token=TOKEN)
    assert TOKEN not in str(error.value)
    with pytest.raises(ConfigError, match="is no Hub repository"):
        hub.push(folder, "me/../tiny")


def test_push_to_hub_of_transformers_uploads_ids_and_keeps_the_card(model, commits, monkeypatch):
    card = ModelCard.from_template(ModelCardData(library_name="seqkd"), template_str="---\n{{ card_data }}\n---\nours")
    monkeypatch.setattr(ModelCard, "load", lambda repo_id, token=None: card)
    PreTrainedModel.push_to_hub(model, "me/tiny", token=TOKEN)
    assert commits[-1] == (
        "commit",
        "me/tiny",
        ["README.md", "config.json", "item_ids.json", "model.safetensors"],
        None,
    )

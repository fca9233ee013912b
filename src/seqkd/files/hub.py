"""A finished model folder -> the Hub: exactly the files a model needs, checked first, nothing else."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, get_token, is_offline_mode
from huggingface_hub.errors import HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id
from safetensors import SafetensorError, safe_open

from ..catalogue import FILE_NAME
from ..errors import CheckpointError, ConfigError, SeqKDError

CARD = "README.md"
EVAL_RESULTS = ".eval_results"
INDEX = "model.safetensors.index.json"
REQUIRED = ("config.json", FILE_NAME, CARD)
PATTERNS = [*REQUIRED, "model.safetensors", INDEX, "model-*-of-*.safetensors", f"{EVAL_RESULTS}/*.yaml", "*.png"]
STALE = ["model*.safetensors", INDEX, f"{EVAL_RESULTS}/*.yaml"]  # of an earlier model in the same repository
# Can run code when it is read, or tells how training stood: neither belongs to a model that others load.
FORBIDDEN = re.compile(
    r".*\.(pkl|pickle|pt|pth|bin|ckpt|joblib|dill|npy|npz|h5|keras|onnx_data|env)|\.netrc|"
    r"(optimizer|scheduler|scaler|rng_state|training_args|trainer_state|methods)[^/]*",
    re.IGNORECASE,
)
TOKEN = re.compile(rb"hf_[A-Za-z0-9]{30,}|api_org_[A-Za-z0-9]{30,}")


def push(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool = True,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str = "Upload model with seqkd",
) -> str:
    """Upload `config.json`, weights, `item_ids.json`, the card and `.eval_results`; returns the commit's address.

    Args:
        folder: from `save_pretrained` and `write_card`.
        private: of a repository that is created now; publishing is a decision, so it has to be said.
        token: default is the one of `hf auth login` or `HF_TOKEN`. It is never written anywhere.
        revision: branch to push to, created if it does not exist.

    Raises:
        CheckpointError: see `check_folder`.
        ConfigError: `repo_id` is no repository id, or `HF_HUB_OFFLINE=1` is set.
        SeqKDError: the Hub refused, or cannot be reached.
    """
    folder = Path(folder)
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ConfigError(f"{repo_id!r} is no Hub repository: {error}") from error
    check_folder(folder, token or get_token())
    if is_offline_mode():
        raise ConfigError(f"HF_HUB_OFFLINE=1 is set, so {folder} is not pushed to {repo_id}. Unset it and push again.")
    api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not revision.startswith("refs/pr"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            allow_patterns=PATTERNS,
            delete_patterns=STALE,
            revision=revision,
            commit_message=commit_message,
        )
    except (HTTPError, OSError, ValueError) as error:  # of the network, of the Hub, of its check of the card
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SeqKDError(f"{folder} was not pushed to {repo_id}: {_without(reason, token or get_token())}") from error
    return str(commit.commit_url)


def check_folder(folder: Path, token: str | None = None) -> None:
    """Whether a folder is a finished model and nothing besides.

    Raises:
        CheckpointError: a file is missing, damaged, a link, a pickle, part of a training state, or holds a token.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder. Save the model first: model.save_pretrained({str(folder)!r}).")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise CheckpointError(f"{folder}: {name} is a link, which may lead anywhere. Put the file itself there.")
        if path.is_file() and FORBIDDEN.fullmatch(path.name):
            raise CheckpointError(
                f"{folder}: {name} is a pickle or belongs to training, and is not for others. Push a folder of "
                "its own: student.save_pretrained(folder), write_card(folder, ...), push(folder, ...)."
            )
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} has no {' and no '.join(missing)}. model.save_pretrained writes config.json and {FILE_NAME} "
            f"(after model.set_catalogue), seqkd.write_card writes {CARD}."
        )
    for weights in weight_files(folder):
        try:
            with safe_open(weights, framework="pt"):
                pass  # opening compares the header with the length of the file
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{weights} is damaged: {error}. Save the model again.") from error
    _refuse_tokens(folder, token)


def weight_files(folder: Path) -> list[Path]:
    """The files that hold the weights of a saved model.

    Raises:
        CheckpointError: one is missing, or the index is damaged or leads out of the folder.
    """
    if not (folder / INDEX).is_file():
        names = {"model.safetensors"}
    else:
        try:
            names = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{folder / INDEX} is damaged ({error}). Save the model again.") from error
    for name in names:
        if not isinstance(name, str) or not PurePosixPath(name).match("model*.safetensors") or set("/\\") & set(name):
            raise CheckpointError(f"{folder / INDEX} names a file outside the folder: {name!r}.")
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} has no {name}. Save the model again: model.save_pretrained({str(folder)!r})."
            )
    return [folder / name for name in sorted(names)]


def _refuse_tokens(folder: Path, token: str | None) -> None:
    """No file may hold the token in use nor anything that looks like one; of weights the header is looked at."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            limit = int.from_bytes(file.read(8), "little") if path.suffix == ".safetensors" else -1
            content = file.read(limit) if limit >= 0 else path.read_bytes()
        if TOKEN.search(content) or (token and token.encode() in content):
            raise CheckpointError(f"{path} holds an access token. Take it out, and revoke the token if others saw it.")


def _without(text: str, token: str | None) -> str:
    return text.replace(token, "<token>") if token else text

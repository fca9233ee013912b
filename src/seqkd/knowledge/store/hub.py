"""Knowledge on the Hub: a dataset repository with the files of one folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from ...errors import KnowledgeError
from .source import PATTERNS


class Place(NamedTuple):
    """A folder with knowledge, and the folder its links must not leave."""

    folder: Path
    root: Path


def fetch(
    name: str | os.PathLike, *, revision: str | None, token: str | bool | None, cache_dir: str | Path | None
) -> Place:
    """A local folder as it is; anything else is downloaded (or, with `HF_HUB_OFFLINE=1`, taken from the cache).

    Raises:
        KnowledgeError: it is neither a folder nor a repository that can be reached.
    """
    if os.path.isdir(name):
        return Place(Path(name), Path(name))
    try:
        folder = Path(
            snapshot_download(
                str(name),
                repo_type="dataset",
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                allow_patterns=PATTERNS,
            )
        )
    except (HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError) as error:
        reason = str(error).strip().splitlines()[0]
        raise KnowledgeError(
            f"{name} is neither a folder nor a dataset repository that can be reached now ({reason}). "
            "Check the name; offline, download it once before."
        ) from error
    return Place(folder, folder.parents[1])  # the cache: <repository>/snapshots/<commit>, links to <repository>/blobs


def publish(
    folder: str | Path, repo_id: str, *, private: bool | None, token: str | bool | None, revision: str | None
) -> str:
    """Upload the files of a knowledge folder and nothing else; returns the commit's address."""
    api = HfApi(token=token)
    api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    info = api.upload_folder(
        repo_id=repo_id,
        repo_type="dataset",
        folder_path=folder,
        allow_patterns=PATTERNS,
        delete_patterns=["*.safetensors"],  # shards of an earlier, longer export
        revision=revision,
        commit_message="Upload knowledge with seqkd",
    )
    return str(info.commit_url)

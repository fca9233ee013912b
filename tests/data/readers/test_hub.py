from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from huggingface_hub.errors import LocalEntryNotFoundError

from seqkd.data.interactions import load_interactions
from seqkd.data.readers import hub
from seqkd.errors import DataError

LOG = pa.table({"user_id": ["a", "b"], "item_id": ["x", "y"], "timestamp": [1, 2]})


def test_what_is_remote():
    for source in ("owner/name", "hf://datasets/owner/name", "hf://datasets/owner/name@v1.0/books"):
        assert hub.is_remote(source)
    for source in ("folder", "./folder/name", "/folder/name", "../name", "a/b/c", "s3://owner/name"):
        assert not hub.is_remote(source)


def test_files_of_ours_are_read_as_a_folder(tmp_path: Path, monkeypatch):
    (tmp_path / "books").mkdir()
    pq.write_table(LOG, tmp_path / "books" / "interactions.parquet")
    asked = {}

    def snapshot_download(repo: str, **options) -> str:
        asked.update(options, repo=repo)
        return str(tmp_path)

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    market = load_interactions("hf://datasets/owner/name@v1.0/books")
    assert market["interactions"].num_rows == 2 and market["interactions"][0]["domain"] == "books"
    assert (asked["repo"], asked["revision"], asked["repo_type"]) == ("owner/name", "v1.0", "dataset")
    fetched = asked["allow_patterns"]
    assert not any(Path(name).match(pattern) for name in ("load.py", "a.pkl", "a.npy", "a.bin") for pattern in fetched)


def test_other_files_go_through_datasets(tmp_path: Path, monkeypatch):
    shutil.copytree(Path(__file__).parent, tmp_path / "shards", ignore=lambda *_: ["__pycache__"])
    loaded = DatasetDict({"train": Dataset(LOG), "test": Dataset(LOG)})
    monkeypatch.setattr(hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr(hub.datasets, "load_dataset", lambda *_, **__: loaded)
    market = load_interactions("owner/name")
    assert market["interactions"].num_rows == 4 and market["interactions"][0]["domain"] == "name"


def test_unreachable_is_one_clear_error(monkeypatch):
    def snapshot_download(*_, **__):
        raise LocalEntryNotFoundError("nothing cached")

    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    with pytest.raises(DataError, match=r"owner/name is neither here nor .*LocalEntryNotFoundError"):
        load_interactions("owner/name")
    with pytest.raises(DataError, match="no data set on the Hub"):
        load_interactions("hf://datasets/name")


def test_offline_without_cache(monkeypatch, tmp_path: Path):
    with pytest.raises(DataError, match="neither here"):
        load_interactions("seqkd-tests/does-not-exist")

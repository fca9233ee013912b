from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from seqkd.data.interactions import load_interactions
from seqkd.errors import DataError

LOG = {"user_id": ["1", "1", "2"], "item_id": ["07", "8", "07"], "timestamp": [3, 1, 2]}
ITEMS = {"item_id": ["07", "8"], "title": ["an item, with comma", 'and "quotes"']}


def rows(columns: dict) -> list[dict]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def write(folder: Path, name: str, ending: str, columns: dict) -> None:
    file = folder / f"{name}.{ending}"
    if ending == "parquet":
        pq.write_table(pa.table(columns), file)
    elif ending == "jsonl":
        file.write_text("\n".join(map(json.dumps, rows(columns))))
    else:
        separator = {"csv": ",", "tsv": "\t"}[ending]
        quoted = [['"' + str(value).replace('"', '""') + '"' for value in row.values()] for row in rows(columns)]
        file.write_text("\n".join(separator.join(line) for line in [list(columns), *quoted]))


@pytest.mark.parametrize("ending", ["parquet", "csv", "tsv", "jsonl"])
def test_every_format_gives_the_same_market(ending, tmp_path: Path):
    write(tmp_path, "interactions", ending, LOG)
    write(tmp_path, "items", ending, ITEMS)
    (tmp_path / "build.py").write_text("raise SystemExit('never run')")  # lies beside, is not touched
    market = load_interactions(tmp_path, domain="books")
    assert market["interactions"].to_list() == rows(LOG | {"domain": ["books"] * 3})
    assert market["items"]["title"][:] == ITEMS["title"]
    alone = load_interactions(tmp_path / f"interactions.{ending}")
    assert alone["items"]["item_id"][:] == ["07", "8"]
    assert alone["interactions"][0]["domain"] == "interactions"


def test_one_table_in_two_formats_is_refused(tmp_path: Path):
    write(tmp_path, "interactions", "csv", LOG)
    write(tmp_path, "interactions", "parquet", LOG)
    with pytest.raises(DataError, match="Keep one"):
        load_interactions(tmp_path)


def test_matrices_beside_the_item_table_belong_to_its_rows(tmp_path: Path, caplog):
    write(tmp_path, "interactions", "csv", LOG)
    np.save(tmp_path / "text_features.npy", np.array([[1.0, 2.0], [0.0, 0.0]]))
    with pytest.raises(DataError, match=r"text_features\.npy .*there is no item table items\.\*"):
        load_interactions(tmp_path)
    write(tmp_path, "items", "csv", ITEMS)
    save_file({"clip": np.array([[3.0], [4.0]], dtype=np.float16)}, tmp_path / "image_features.safetensors")
    items = load_interactions(tmp_path)["items"]
    assert items["text_features"][:] == [[1.0, 2.0], [0.0, 0.0]] and items["image_features"][:] == [[3.0], [4.0]]
    assert "text_features.npy: 1 of 2 items have no vector" in caplog.text
    np.save(tmp_path / "image_features.npy", np.ones((2, 1), np.float32))
    with pytest.raises(DataError, match="Keep one"):
        load_interactions(tmp_path)
    (tmp_path / "image_features.npy").unlink()
    (tmp_path / "items.csv").unlink()
    write(tmp_path, "items", "parquet", ITEMS | {"text_features": [[1.0], [2.0]]})
    with pytest.raises(DataError, match=r"text_features\.npy .*items\.parquet has a column 'text_features' too"):
        load_interactions(tmp_path)


def test_header_only(tmp_path: Path):
    (tmp_path / "interactions.csv").write_text("user_id,item_id,timestamp\n")
    with pytest.raises(DataError, match=r"interactions\.csv holds no interactions \(only a header"):
        load_interactions(tmp_path)


def test_nothing_known_lists_what_is_there_and_what_is_possible(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"(?s)Found \['notes\.txt'\].*tables: .*UniSRec|UniSRec.*tables: "):
        load_interactions(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load_interactions(tmp_path / "nowhere")


def test_unsafe_sources(tmp_path: Path):
    np.save(tmp_path / "log.npy", np.array([{"a": 1}]))  # objects, that is a pickle
    (tmp_path / "data.py").write_text("raise SystemExit('never run')")
    for source in (tmp_path / "log.npy", tmp_path / "data.py", tmp_path):
        with pytest.raises(DataError, match=r"Dataset\.to_parquet"):
            load_interactions(source)

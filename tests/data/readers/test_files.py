from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seqkd.data.readers.files import read_csv, read_parquet, refuse_unsafe
from seqkd.data.readers.json_files import read_json, read_jsonl
from seqkd.errors import DataError


def test_csv_keeps_ids_to_the_letter_and_finds_the_separator(tmp_path: Path):
    for separator in "\t,;|":
        file = tmp_path / "log.csv"
        file.write_text(f'user{separator}item\n007{separator}"a{separator}b"\n', encoding="utf-8-sig")
        table = read_csv(file)
        assert table.to_pydict() == {"user": ["007"], "item": [f"a{separator}b"]}


def test_csv_faults_name_the_file(tmp_path: Path):
    file = tmp_path / "log.csv"
    file.write_text("a,b\n1,2\n3\n")
    with pytest.raises(DataError, match=r"log\.csv .*Expected 2 columns, got 1"):
        read_csv(file)
    file.write_bytes(b"a,b\n\xff\xfe,2\n")
    with pytest.raises(DataError, match=r"log\.csv"):
        read_csv(file)
    file.write_bytes("a,b\n1,2\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"log\.csv"):
        read_csv(file)
    file.write_bytes(b"a\0,b\n1,2\n")
    with pytest.raises(DataError, match=r"log\.csv:1 holds a NUL byte"):
        read_csv(file)


def test_long_separators_and_unquoted_quotes(tmp_path: Path):
    file = tmp_path / "movies.dat"
    file.write_bytes('1::The "Caf\xe9"::x\n'.encode("latin-1"))
    table = read_csv(file, "::", names=["a", "b", "c"], quoted=False, encoding="latin-1")
    assert table.to_pydict() == {"a": ["1"], "b": ['The "Café"'], "c": ["x"]}


@pytest.mark.parametrize("read", [read_csv, read_jsonl, read_parquet, read_json])
def test_empty_files(read, tmp_path: Path):
    file = tmp_path / "log.x"
    file.touch()
    with pytest.raises(DataError, match=r"log\.x is empty"):
        read(file)


def test_damaged_parquet(tmp_path: Path):
    file = tmp_path / "log.parquet"
    pq.write_table(pa.table({"a": list(range(1000))}), file)
    whole = file.read_bytes()
    for damaged in (whole[:-20], whole[:100], whole[: len(whole) // 2] + whole[-8:], b"no parquet at all"):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=r"log\.parquet is no readable parquet file"):
            read_parquet(file)


@pytest.mark.parametrize("name", ["a.pkl", "a.pickle.gz", "a.npy", "a.npz", "a.pt", "a.py"])
def test_unsafe_files_are_refused_with_the_safe_way(name, tmp_path: Path):
    with pytest.raises(DataError, match=r"Dataset\.to_parquet"):
        refuse_unsafe(tmp_path / name)

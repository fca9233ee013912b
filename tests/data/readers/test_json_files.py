from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from seqkd.data.readers.json_files import read_jsonl
from seqkd.errors import DataError


def test_a_broken_json_line_is_shown_with_its_number(tmp_path: Path):
    file = tmp_path / "log.jsonl"
    file.write_text('{"a": 1}\n\n{"a": 2, oops}\n')
    with pytest.raises(DataError, match=r"log\.jsonl:3 is no valid JSON .*oops"):
        read_jsonl(file)
    file.write_text('{"a": 1}\n[1]\n')
    with pytest.raises(DataError, match=r"log\.jsonl:2 is no JSON object"):
        read_jsonl(file)
    file.write_text('{"a": 1}\n{"a": "\\ud800"}\n')
    with pytest.raises(DataError, match="column 'a' cannot be read"):
        read_jsonl(file)


def test_jsonl_ids_of_mixed_types_become_strings(tmp_path: Path, monkeypatch):
    file = tmp_path / "log.jsonl"
    file.write_text('{"a": 1}\n{"a": "1", "b": 2}\n')
    for lines in (100, 1):  # in one chunk, in two
        monkeypatch.setattr("seqkd.data.readers.json_files.LINES_PER_CHUNK", lines)
        assert read_jsonl(file).to_pydict() == {"a": ["1", "1"], "b": [None, 2]}


def test_many_lines_are_read_in_chunks(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("seqkd.data.readers.json_files.LINES_PER_CHUNK", 2)
    file = tmp_path / "log.jsonl.gz"
    for lines in (1, 2, 4, 5):
        with gzip.open(file, "wt") as out:
            out.write("".join(f'{{"a": {line}}}\n' for line in range(lines)))
        assert read_jsonl(file)["a"].to_pylist() == list(range(lines))
    file.write_bytes(file.read_bytes()[:-12])
    with pytest.raises(DataError, match=r"log\.jsonl\.gz"):
        read_jsonl(file)

from __future__ import annotations

import numpy as np
import pytest

from seqkd.data.encoding_cache import cached


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "vocab.txt"])
def test_a_change_of_any_file_that_makes_the_model_is_seen(name, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / name).write_text("one")
    calls = []

    def ask() -> np.ndarray:
        def encode() -> np.ndarray:
            calls.append(1)
            return np.full((1, 2), len(calls), dtype=np.float32)

        return cached(tmp_path / "cache", "text", (model, None), {}, [b"glue"], encode)

    assert ask().tolist() == ask().tolist() == [[1, 1]]
    (model / "README.md").write_text("says nothing about vectors")
    assert ask().tolist() == [[1, 1]]
    (model / name).write_text("two")
    assert ask().tolist() == [[2, 2]]


def test_without_a_folder_nothing_is_read_or_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def contents():
        raise AssertionError("read")
        yield b""

    assert cached(None, "text", ("no/such-model", None), {}, contents(), lambda: np.ones((1, 1))).tolist() == [[1]]
    assert not list(tmp_path.iterdir())

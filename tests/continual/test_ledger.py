"""A stage is there when it is complete, and is then done once."""

from __future__ import annotations

import json
import os

import pytest

from seqkd.continual.ledger import COST, Ledger


def test_a_stage_runs_once_and_notes_what_it_took(tmp_path):
    calls = []

    def work(folder):
        calls.append(folder)
        (folder / "part").mkdir()
        (folder / "part" / "weights").write_bytes(b"12345")
        return {"epochs": 3}

    ledger = Ledger(tmp_path / "2")
    done = ledger.run("teachers/wide", work)
    assert done == tmp_path / "2" / "teachers" / "wide" == ledger.run("teachers/wide", work)
    assert calls == [tmp_path / "2" / "teachers" / "wide.partial"] and not calls[0].exists()
    told = json.loads((done / COST).read_text())
    assert told["epochs"] == 3 and told["bytes_written"] == 5
    assert told["seconds"] >= 0 and told["cpu_seconds"] >= 0 and told["peak_memory_mb"] > 10


def test_what_stopped_half_way_is_begun_with_an_empty_folder(tmp_path):
    ledger = Ledger(tmp_path)

    def stops(folder):
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ledger.run("student", stops)
    assert not (tmp_path / "student").exists() and list(ledger.costs()) == []
    ledger.run("student", lambda folder: (folder / "whole").write_text("y") and None)
    assert sorted(os.listdir(tmp_path / "student")) == [COST, "whole"] and os.listdir(tmp_path) == ["student"]


def test_costs_come_in_the_order_in_which_stages_ended(tmp_path):
    ledger = Ledger(tmp_path)
    for at, stage in enumerate(["student", "teachers/b", "block"]):
        os.utime(ledger.run(stage, lambda folder: None) / COST, (at, at))
    assert [stage for stage, _ in ledger.costs()] == ["student", "teachers/b", "block"]
    assert list(Ledger(tmp_path / "nothing").costs()) == []

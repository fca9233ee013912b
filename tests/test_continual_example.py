"""examples/continual_ccd.py from the command line to a report and a student to serve, in one process and in two."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seqkd.continual.evolution import Evolution
from seqkd.data.interactions import INTERACTIONS
from tests.continual.small import market

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "examples" / "continual_ccd.py"
FIT = {"training": {"num_train_epochs": 2, "per_device_train_batch_size": 64, "use_cpu": True}, "every": 1}
REPLAY = {"methods": {"replay": {"draws": 2, "list_length": 8}}, "weights": {"replay": 0.5}}
SETTINGS = {
    "cut": {"blocks": 1},
    "baselines": ["frozen", "fine-tune"],
    "run": {
        "blocks": {"split": "random"},
        "student": {"type": "mf", "model": {"hidden_size": 4}},
        "teachers": {"lightgcn": {"type": "lightgcn", "model": {"hidden_size": 8, "num_layers": 1}}},
        "base": FIT,
        "generate": {**FIT, "methods": {"full_ce": {}}, "weights": {"full_ce": 1.0}},
        "update_student": {**FIT, **REPLAY},
        "update_teacher": {**FIT, **REPLAY},
        "rehearsed": 8,
        "list_length": 10,
        "metric": "recall@5",
        "cutoffs": [5, 10],
        "margin": 1.0,  # two epochs teach a model too little to lose
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A log and a configuration."""
    place = tmp_path_factory.mktemp("stream")
    with open(place / "log.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["user_id", "item_id", "timestamp"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(market()[INTERACTIONS].to_list())
    (place / "stream.yaml").write_text(json.dumps({"data": str(place / "log.csv"), **SETTINGS}), encoding="utf-8")
    return place


def launch(folder: Path, output: str, *more: str, processes: int = 1) -> subprocess.CompletedProcess:
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(together if processes > 1 else [])]
    arguments = ["--config", str(folder / "stream.yaml"), "--output_dir", str(folder / output), *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(
        [*command, str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, timeout=240
    )


def told(done: subprocess.CompletedProcess) -> str:
    """What went wrong: a launcher's own report of it is longer than the cause."""
    return done.stderr.partition("elastic/multiprocessing/api.py")[0][-4000:]


@pytest.fixture(scope="module")
def alone(folder) -> Path:
    done = launch(folder, "alone")
    assert done.returncode == 0, told(done)
    assert "| CCD student, at once" in done.stdout and "| student, fine-tune" in done.stdout
    assert "seed 0, block 1: teachers and student" in done.stdout + done.stderr
    return folder / "alone"


def test_it_leaves_a_report_and_a_student(alone):
    assert {path.name for path in alone.iterdir()} == {"report.md", "stream.json", "stream.png", "seed-0"}
    run = Evolution(alone / "seed-0" / "ccd")
    assert len(run.blocks) == 2 and len(run.student.recommend([["i1"]], k=3, users=["u1"]).item_ids[0]) == 3
    assert set(json.loads((alone / "stream.json").read_text())) >= {"CCD student, distilled", "student, frozen"}


@pytest.mark.slow
def test_two_processes_go_the_same_way(folder, alone):
    """The same stages, blocks and steps; batches are halves, so that losses are summed in another order."""
    done = launch(folder, "both", processes=2)
    assert done.returncode == 0, told(done)
    assert done.stdout.count("CCD student, at once") == (alone / "report.md").read_text().count("CCD student, at once")
    one, two = (Evolution(place / "seed-0" / "ccd") for place in (alone, folder / "both"))
    assert [block.fingerprint for block in two.blocks] == [block.fingerprint for block in one.blocks]
    for k in range(2):
        assert [stage for stage, _ in two.ledger(k).costs()] == [stage for stage, _ in one.ledger(k).costs()]
    assert not list((folder / "both").rglob("*.partial"))
    ours, theirs = two.student.state_dict(), one.student.state_dict()
    assert ours.keys() == theirs.keys() and all(ours[name].shape == theirs[name].shape for name in ours)
    assert all(torch.isfinite(tensor).all() for tensor in ours.values() if tensor.is_floating_point())


def test_wrong_input_is_one_line_before_anything_is_trained(folder):
    done = launch(folder, "wrong", "--run.student.type", "sasrec")
    assert done.returncode != 0 and "A stream is of one side." in done.stderr and "Traceback" not in done.stderr
    assert not (folder / "wrong").exists()

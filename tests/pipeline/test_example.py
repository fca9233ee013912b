from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

from transformers import AutoModel

from seqkd.data.interactions import INTERACTIONS, ITEMS
from tests.pipeline.small import NARROW, TRAINING, WIDE

ROOT = Path(__file__).resolve().parents[2]


def test_the_example_runs_from_data_to_card_and_figure(tmp_path, market):
    for name, table in ((INTERACTIONS, "interactions.csv"), (ITEMS, "items.csv")):
        with open(tmp_path / table, "w", encoding="utf-8", newline="") as file:
            plain = [column for column in market[name].column_names if column != "image_features"]
            writer = csv.DictWriter(file, plain, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(market[name].to_list())
    config = {
        "domains": ["films"],
        "student": {"model": NARROW},
        "teachers": {"wide": {"model": WIDE}},
        "method": {"candidates": "catalogue"},
        "training": {**TRAINING, "metric_ks": [10, 50]},
        "distillation": {"tail_queries": True},
        "list_length": 8,
        "output_dir": str(tmp_path / "out"),
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    command = [sys.executable, str(ROOT / "examples" / "distill_mdsr.py"), "--config", str(tmp_path / "config.yaml")]
    source = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, "--data", str(tmp_path)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("teacher wide", "student alone", "student distilled"):
        assert name in done.stdout
    out = tmp_path / "out"
    assert (out / "accuracy_against_cost.png").stat().st_size > 10_000
    results = json.loads((out / "results.json").read_text())
    assert len(results["results"]) == 6  # three models, history masked and not
    student = AutoModel.from_pretrained(out / "films")
    assert len(student.recommend([["films-00001"]], k=3).item_ids[0]) == 3
    card = (out / "films" / "README.md").read_text()
    assert "2401.00797" in card and "loo" in card

    typo = [*command, "--data", str(tmp_path), "--domains", '["filme"]']
    done = subprocess.run(typo, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stderr.strip().splitlines()[-1].startswith("error: domains ['filme']")

"""`import seqkd` is all that the Auto classes need."""

import json
import subprocess
import sys
from pathlib import Path

import seqkd.models


def test_import_seqkd_makes_every_model_known():
    folders = {path.parent.name for path in Path(seqkd.models.__file__).parent.glob("*/__init__.py")}
    code = (
        "import json, seqkd; from transformers.models.auto.configuration_auto import CONFIG_MAPPING; "
        "print(json.dumps([name for name in CONFIG_MAPPING if name.startswith('seqkd_')]))"
    )
    known = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    assert {f"seqkd_{folder}" for folder in folders} | {"seqkd_causal_recformer"} == set(known)

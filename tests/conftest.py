"""Where tests find golden vectors and data, and the tiny things many tests need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)  # tests are made of tiny tensors; two threads make them slower
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def golden() -> Path:
    return Path(os.environ.get("SEQKD_GOLDEN", ROOT / "tests" / "golden"))


@pytest.fixture(scope="session")
def data() -> Path:
    folder = Path(os.environ.get("SEQKD_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}; set SEQKD_DATA")
    return folder

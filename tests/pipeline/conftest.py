from __future__ import annotations

import pytest

from seqkd import pipeline
from seqkd.config import Experiment, ModelConfig, TeacherConfig
from seqkd.data.market import synthetic_market
from tests.pipeline.small import NARROW, TRAINING, WIDE


@pytest.fixture(scope="module")
def market():
    return synthetic_market(users=60, items=40, mean_length=6, max_length=10)


@pytest.fixture
def experiment(tmp_path, market, monkeypatch) -> Experiment:
    """One epoch of everything on 60 users and 40 items in each of two domains, no text model."""
    monkeypatch.setattr(pipeline.domains, "synthetic_market", lambda: market)
    return Experiment(
        student=ModelConfig(model=NARROW),
        teachers={"wide": TeacherConfig(model=WIDE)},
        method={"candidates": "catalogue", "curriculum": None},
        training=TRAINING,
        list_length=8,
        output_dir=str(tmp_path),
    )


@pytest.fixture
def books(experiment):
    return pipeline.load_domains(experiment)["books"]

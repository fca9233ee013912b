"""The settings of a run: kept, read again, and refused where they would fail late or do nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from seqkd.config import ModelConfig, TeacherConfig
from seqkd.continual.configuration import LAYERED, STAGES, UNWEIGHTED, BlockConfig, ContinualConfig
from seqkd.continual.experiment import StreamExperiment
from seqkd.continual.fit import FitConfig
from seqkd.errors import ConfigError
from seqkd.parsing import parse
from seqkd.pipeline.kinds import KINDS
from seqkd.recommenders.edge_recommender import EdgeRecommender

from .small import config


def test_what_is_saved_is_read(tmp_path):
    made = config(seed=3, teachers={"a": {"type": "mf"}, "b": {"type": "lightgcn", "model": {"num_layers": 1}}})
    made.save(tmp_path)
    assert ContinualConfig.load(tmp_path) == made and [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert made.teachers["b"] == TeacherConfig("lightgcn", {"num_layers": 1})


def test_a_tuple_is_the_list_that_comes_back(tmp_path):
    made = ContinualConfig(cutoffs=(20, 50))
    made.save(tmp_path)
    assert ContinualConfig.load(tmp_path) == made


def test_the_defaults_are_those_that_were_measured():
    """On Yelp, by configs/ccd/yelp_mf.yaml."""
    path = Path(__file__).resolve().parents[2] / "configs" / "ccd" / "yelp_mf.yaml"
    measured = parse(StreamExperiment, "a stream", ["--config", str(path)]).run
    for name in STAGES:
        assert getattr(measured, name).training.pop("use_cpu")
    assert measured == ContinualConfig() == ContinualConfig.of({})


def test_nested_values_become_settings():
    made = ContinualConfig.of({"base": {"patience": 7}, "blocks": {"split": "random"}, "student": {"type": "fm"}})
    assert made.base == FitConfig(patience=7) and made.blocks == BlockConfig(split="random")
    assert made.student == ModelConfig("fm")


DRAWS = {"stability": 2, "plasticity": 1, "student": 0}
TWO = {"a": {"type": "mf"}, "b": {"type": "mf"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": {"type": "mf", "training": {"learning_rate": 1.0}}}, r"student\.training does nothing"),
        ({"teachers": {"a": {"type": "recforner"}}}, r"teachers\.a\.type"),
        ({"base": {"methods": {"rrd": {}}}}, r"base\.methods does nothing"),
        ({"generate": {"methods": {"rrd": {"interestin": 1}}}}, r"generate\.methods\.rrd.*'interesting'"),
        ({"update_teacher": {"methods": {"replay": {"draws": 500}}}}, "draws=500"),
        ({"update_teacher": {"weights": {"replay": 0.5}, "methods": {}}}, "weights name"),
        ({"teachers": TWO, "generate": {"methods": {"de": {}}}}, "2 teachers agree on rankings alone"),
        ({"update_student": {"methods": {"replay": {}, "rrd": {}}}}, "Take one of the two"),
        ({"init": "nearest"}, "init must be one of"),
        ({"graph": "decayed", "decay": 1.0}, "between 0 and 1"),
        ({"rehearsed": 0}, "rehearsed must be at least 1"),
        ({"avoided": -1}, "avoided must be at least 0"),
        ({"margin": 2}, "margin is a share"),
        ({"blocks": {"split": "random", "period": "day"}}, "blocks: BlockConfig has no field 'period'"),
        ({"metric": "mrr@5"}, "metric must be"),
        ({"graph": "decayed", "teachers": {"a": {"type": "itemae"}}}, r"\['itemae'\] count every interaction alike"),
        ({"avoided": 3, "update_teacher": {"methods": {}}}, "avoided=3 does nothing in update_teacher"),
        ({"update_teacher": {"methods": {"lwc_kd": {}}}, "teachers": {"a": {"type": "cml"}}}, r"lwc_kd keeps .*'cml'"),
        ({"update_student": {"methods": {"lwc_kd": {}}}, "student": {"type": "fm"}}, r"update_student.*lwc_kd.*'fm'"),
        ({"update_student": {"methods": {"replay": {"draws": DRAWS}}}}, r"update_student.*draws names.*'student'"),
        ({"update_teacher": {"methods": {"replay": {"draws": {"stability": 1}}}}}, "update_teacher.*Name each"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_what_looks_like_it_is_allowed():
    config(teachers=TWO, generate={"methods": {"rrd": {}}})
    config(generate={"methods": {"de": {}}})  # of one teacher
    config(update_teacher={"methods": {"replay": {}, "lwc_kd": {}}})  # as the release has it
    config(generate={"methods": {}})
    config(decay=1.0)  # which nothing reads
    config(update_teacher={"methods": {"replay": {"draws": DRAWS}}})


def test_what_holds_interactions_without_weights_is_known():
    held = {name for name, kind in KINDS.items() if issubclass(kind.model, EdgeRecommender)}
    assert held - {"lightgcn"} == set(UNWEIGHTED) and set(LAYERED) <= set(KINDS)

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from seqkd.batches.curriculum import Curriculum
from seqkd.config import TeacherConfig, TextConfig
from seqkd.continual.fit import FitConfig
from seqkd.errors import ConfigError
from seqkd.methods import METHODS
from seqkd.methods.ckd_mdsr import CKDMDSRConfig
from seqkd.models.sasrec import SASRecConfig
from seqkd.settings import check_types, make
from seqkd.training_args import DistillationArguments


@pytest.mark.parametrize(
    ("kind", "typo", "meant"),
    [
        (SASRecConfig, "hiden_size", "hidden_size"),
        (SASRecConfig, "hidden_dropout", "hidden_dropout_prob"),
        (DistillationArguments, "learning_rat", "learning_rate"),
        (DistillationArguments, "tail_query", "tail_queries"),
        (CKDMDSRConfig, "candidate", "candidates"),
        (Curriculum, "initial_competense", "initial_competence"),
    ],
)
def test_a_typo_gets_the_closest_name(kind, typo, meant):
    with pytest.raises(ConfigError, match=rf"here: {kind.__name__} has no field '{typo}'. Did you mean '{meant}'\?"):
        make(kind, {typo: 1}, "here")


def test_a_name_like_no_other_gets_no_hint():
    with pytest.raises(ConfigError) as refused:
        make(Curriculum, {"zzz": 1}, "method.curriculum")
    assert str(refused.value) == "method.curriculum: Curriculum has no field 'zzz'."


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"learning_rate": "abc"}, "learning_rate must be a number, got 'abc'"),
        ({"num_train_epochs": True}, "num_train_epochs must be a number, got True"),
        ({"per_device_eval_batch_size": "none"}, "per_device_eval_batch_size must be a whole number, got 'none'"),
        ({"max_steps": 2.5}, "max_steps must be a whole number, got 2.5"),
        ({"use_cpu": "yes"}, "use_cpu must be true or false, got 'yes'"),
        ({"save_total_limit": "none"}, "save_total_limit must be a whole number or null, got 'none'"),
        ({"history": 3}, "history must be text, got 3"),
        ({"metric_ks": 10}, "metric_ks must be a list, each a whole number, got 10"),
        ({"metric_ks": [10, "20"]}, "metric_ks must be a list, each a whole number, got"),
        ({"report_to": 3}, "report_to must be null or text or a list, each text, got 3"),
        ({"eval_strategy": "sometimes"}, "sometimes is not a valid IntervalStrategy"),
    ],
)
def test_a_training_argument_of_another_type_is_refused_by_name(settings, says):
    with pytest.raises(ConfigError) as refused:
        make(DistillationArguments, {"use_cpu": True, **settings}, "training", output_dir="outputs")
    assert str(refused.value).startswith(f"training: {says}") and "\n" not in str(refused.value)


def test_values_of_the_right_type_pass():
    fits = {
        "learning_rate": 1,
        "num_train_epochs": np.float64(2),
        "seed": np.int64(3),
        "metric_ks": [5],
        "run_name": None,
    }
    fits |= {"report_to": [], "optim": "sgd", "lr_scheduler_kwargs": {"a": 1}, "warmup_steps": 0.1, "use_cpu": True}
    made = make(DistillationArguments, fits, "training", output_dir="outputs")
    assert (made.learning_rate, made.num_train_epochs, made.seed, made.metric_ks) == (1, 2, 3, [5])


@pytest.mark.parametrize(
    "kind", [DistillationArguments, TeacherConfig, TextConfig, FitConfig, *(m.config_class for m in METHODS.values())]
)
def test_what_a_dataclass_has_by_default_is_of_its_type(kind):
    usual = {item.name: getattr(kind(), item.name) for item in fields(kind) if item.init}
    check_types(kind, usual, "here")


def test_methods_and_stages_are_checked_alike():
    with pytest.raises(ConfigError, match="method: temperature must be a number, got 'warm'"):
        make(CKDMDSRConfig, {"temperature": "warm"}, "method")
    with pytest.raises(ConfigError, match="base: patience must be a whole number, got None"):
        make(FitConfig, {"patience": None}, "base")
    with pytest.raises(ConfigError, match=r"model: .*'hidden_size'.* expected int, got str") as refused:
        make(SASRecConfig, {"hidden_size": "wide"}, "model")
    assert "\n" not in str(refused.value)


def test_make_fills_in_what_is_fixed_and_fixed_values_win():
    made = make(Curriculum, {"fraction": 0.5, "stages": 2}, "curriculum", stages=3)
    assert made == Curriculum(fraction=0.5, stages=3)

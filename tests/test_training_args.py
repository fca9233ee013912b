from __future__ import annotations

import pytest

from seqkd.errors import ConfigError
from seqkd.training_args import DistillationArguments

from .tiny import arguments


def test_defaults_of_a_recommender(tmp_path):
    made = DistillationArguments(output_dir=str(tmp_path), use_cpu=True)
    assert (made.per_device_train_batch_size, made.num_train_epochs, made.learning_rate) == (256, 100, 1e-3)
    assert made.lr_scheduler_type == "constant" and made.max_grad_norm == 0.0
    assert (made.history, made.metric_ks, made.tail_queries) == ("masked", (10, 50), False)
    assert made.metric_for_best_model == "ndcg@10" and made.greater_is_better is True
    assert made.logging_nan_inf_filter is False  # the trainer stops at a loss that is not finite
    assert made.remove_unused_columns is False  # rows are no columns here: transformers would drop them


def test_every_argument_of_transformers_can_be_set(tmp_path):
    made = arguments(tmp_path, learning_rate=0.5, warmup_steps=7, save_strategy="steps", save_steps=2)
    assert (made.learning_rate, made.warmup_steps, made.save_steps) == (0.5, 7, 2)


@pytest.mark.parametrize("history", ["both", "", "Masked"])
def test_an_unknown_protocol_is_refused(tmp_path, history):
    with pytest.raises(ConfigError, match=f"'masked' or 'unmasked', got '{history}'"):
        arguments(tmp_path, history=history)


def test_the_number_of_processes_that_was_asked_for_is_checked(tmp_path):
    assert arguments(tmp_path, num_processes=1).world_size == 1
    assert arguments(tmp_path, num_processes=None).num_processes is None
    with pytest.raises(ConfigError, match=r"asked for num_processes=4, but the launcher started 1.*accelerate launch"):
        arguments(tmp_path, num_processes=4)


def test_a_token_or_a_push_is_no_setting(tmp_path):
    for setting in ({"hub_token": "hf_x"}, {"push_to_hub": True}):
        with pytest.raises(ConfigError, match="seqkd push"):
            DistillationArguments(output_dir=str(tmp_path), use_cpu=True, **setting)


def test_workers_do_not_outlive_an_epoch(tmp_path):
    assert arguments(tmp_path, dataloader_num_workers=2).dataloader_num_workers == 2
    with pytest.raises(ConfigError, match=r"keep what workers drew in the first epoch.*Leave it off"):
        arguments(tmp_path, dataloader_num_workers=2, dataloader_persistent_workers=True)

from __future__ import annotations

from seqkd import pipeline


def test_later_training_arguments_win_and_each_model_has_its_folder(experiment, tmp_path):
    arguments = pipeline.arguments_for(experiment, "a", 3, {"learning_rate": 0.5}, {"num_train_epochs": 7})
    assert (arguments.learning_rate, arguments.num_train_epochs, arguments.seed) == (0.5, 7, 3)
    assert arguments.per_device_train_batch_size == 32
    assert arguments.output_dir == str(tmp_path / "runs" / "a")
    assert (arguments.eval_strategy, arguments.save_strategy, arguments.save_total_limit) == ("epoch", "best", 1)


def test_an_unquoted_no_is_a_no(experiment):
    """YAML reads `save_strategy: no` as false."""
    off = {"save_strategy": False, "eval_strategy": False, "load_best_model_at_end": False}
    arguments = pipeline.arguments_for(experiment, "a", 0, off)
    assert (arguments.save_strategy, arguments.eval_strategy) == ("no", "no")
    assert arguments.load_best_model_at_end is False  # only strategies are words

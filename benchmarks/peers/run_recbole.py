"""Time RecBole's SASRec: its own trainer's epoch (a row per prefix) and its own full-sort evaluation."""

from __future__ import annotations

import os
import tempfile
from itertools import islice
from pathlib import Path

from protocol import Clock, Report, Setting, arguments, one_thread, read_interactions, timed, versions_of
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

NAME = "market"
NOTES = [
    "RecBole's data augmentation: one row per prefix, padded to 50",
    "train_batch_size 2048 and eval_batch_size 4096 are its defaults",
    "an epoch is Trainer._train_epoch, what Trainer.fit times itself; two batches go ahead as warm-up",
    "evaluation is Trainer.evaluate over the valid users, history not masked (`repeatable`, its default for sequences)",
]


def write_atomic_file(data: Path, folder: Path) -> None:
    table = read_interactions(data)
    table.columns = ["user_id:token", "item_id:token", "timestamp:float"]
    (folder / NAME).mkdir()
    table.to_csv(folder / NAME / f"{NAME}.inter", sep="\t", index=False)


def make_config(setting: Setting, folder: Path) -> Config:
    options = {
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "use_gpu": False,
        "seed": setting.seed,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": setting.max_length,
        "hidden_size": setting.width,
        "n_layers": setting.layers,
        "n_heads": setting.heads,
        "inner_size": setting.inner,
        "hidden_dropout_prob": setting.dropout,
        "attn_dropout_prob": setting.dropout,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "learning_rate": setting.learning_rate,
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
        "repeatable": True,
        "metrics": ["Recall", "NDCG"],
        "topk": list(setting.top_k),
        "valid_metric": f"NDCG@{setting.top_k[0]}",
        "show_progress": False,
    }
    return Config(model="SASRec", dataset=NAME, config_dict=options)


def main() -> None:
    options, setting = arguments(), Setting()
    versions = versions_of("recbole", "torch", "numpy", "pandas", "scipy", "pyarrow")
    report = Report("recbole", versions, one_thread(), 2048, "prefixes", NOTES, options.smoke)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # RecBole drops its logs where it stands
        clock = Clock()
        write_atomic_file(options.data, Path(folder))
        config = make_config(setting, Path(folder))
        init_seed(config["seed"], config["reproducibility"])
        train, valid, _ = data_preparation(config, create_dataset(config))
        model = SASRec(config, train._dataset).to(config["device"])
        trainer = Trainer(config, model)
        trainer.eval_collector.data_collect(train)
        report.setup_s = round(clock.read()[0], 2)
        report.batch_size = config["train_batch_size"]
        report.n_rows = report.n_targets = len(train._dataset)
        report.n_items = model.n_items - 1
        report.n_eval_users = len(valid._dataset)

        trainer._train_epoch(islice(train, 2), 0)
        for epoch in range(options.epochs):
            batches = islice(train, 2) if options.smoke else train
            wall, cpu, loss = timed(trainer._train_epoch, batches, epoch)
            report.add_epoch(wall, cpu, loss / (2 if options.smoke else len(train)))
        for _ in range(options.evals):
            report.add_eval(*timed(trainer.evaluate, valid, False))  # False: the model as it stands, from no file


if __name__ == "__main__":
    main()

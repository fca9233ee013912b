"""Time RecTools' SASRecModel: Lightning's own epoch over whole sequences, and `recommend` with its metrics."""

from __future__ import annotations

import logging
import warnings

import pandas as pd
from protocol import (
    Clock,
    Report,
    Setting,
    arguments,
    leave_one_out,
    one_thread,
    read_interactions,
    timed,
    versions_of,
)
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import NDCG, Recall, calc_metrics
from rectools.models import SASRecModel

NOTES = [
    "RecTools trains on whole sequences, padded to 50, with logits over the catalogue at every slot, padding too",
    "batch_size 128 and recommend_batch_size 256 are its defaults; no warm-up, the first epoch counts",
    "its feed-forward layer is as wide as the model (64, not 256): less work than the others do, left as it is",
    "a user's train part is cut to its last 51 items, so targets further back are not trained",
    "items that occur only as valid or test targets are unknown to it",
    "evaluation is recommend(k=50, filter_viewed=False) for the valid users and calc_metrics on its table",
]


class EpochClock(Callback):
    """Reports each epoch of the training loop, from its first batch to its last."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def __deepcopy__(self, memo: dict) -> EpochClock:
        return self  # RecTools trains with a deep copy of its trainer; the report must stay the one we hold

    def on_train_epoch_start(self, trainer: Trainer, pl_module: object) -> None:
        self.clock = Clock()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: object) -> None:
        loss = trainer.callback_metrics["train_loss"].item()
        self.report.add_epoch(*self.clock.read(), loss)


def as_interactions(table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            Columns.User: table["user_id"],
            Columns.Item: table["item_id"],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(table["timestamp"], unit="s"),
        }
    )


def main() -> None:
    options, setting = arguments(), Setting()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    versions = versions_of("rectools", "pytorch-lightning", "torch", "numpy", "pandas", "scipy", "pyarrow")
    report = Report("rectools", versions, one_thread(), 128, "sequences", NOTES, options.smoke)
    seed_everything(setting.seed)

    def make_trainer() -> Trainer:
        return Trainer(
            accelerator="cpu",
            devices=1,
            min_epochs=options.epochs,
            max_epochs=options.epochs,
            limit_train_batches=2 if options.smoke else 1.0,
            callbacks=[EpochClock(report)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    clock = Clock()
    train, valid = (as_interactions(part) for part in leave_one_out(read_interactions(options.data)))
    dataset = Dataset.construct(train)
    model = SASRecModel(
        n_factors=setting.width,
        n_blocks=setting.layers,
        n_heads=setting.heads,
        dropout_rate=setting.dropout,
        session_max_len=setting.max_length,
        loss="softmax",
        lr=setting.learning_rate,
        recommend_torch_device="cpu",
        get_trainer_func=make_trainer,
    )
    lengths = train.groupby(Columns.User).size().clip(upper=setting.max_length + 1)
    report.batch_size = model.batch_size
    report.setup_s = round(clock.read()[0], 2)
    report.n_rows = int((lengths >= 2).sum())
    report.n_targets = int((lengths[lengths >= 2] - 1).sum())
    report.n_items = int(train[Columns.Item].nunique())
    report.n_eval_users = len(valid)

    model.fit(dataset)

    k = max(setting.top_k)
    metrics = {f"recall@{top}": Recall(k=top) for top in setting.top_k}
    metrics |= {f"ndcg@{top}": NDCG(k=top, divide_by_achievable=True) for top in setting.top_k}  # one target: IDCG is 1
    users = valid[Columns.User].to_numpy()

    def evaluate() -> dict[str, float]:
        table = model.recommend(users, dataset, k=k, filter_viewed=False)
        return calc_metrics(metrics, reco=table, interactions=valid)

    for _ in range(options.evals):
        report.add_eval(*timed(evaluate))


if __name__ == "__main__":
    main()

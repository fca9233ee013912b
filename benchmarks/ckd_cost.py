"""What distillation adds to an epoch: plain SASRec against CKD-MDSR from two teachers, side by side, one thread.

    python benchmarks/ckd_cost.py --data ../shared/data/amazon_scientific

The runs take turns, so that a machine that slows down slows all of them. Teachers are untrained: what they say does
not change what reading it costs. Without tail queries all runs answer the same queries.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import TrainerCallback, set_seed

from seqkd import (
    CKDMDSR,
    CKDMDSRConfig,
    DistillationArguments,
    DistillationTrainer,
    Distiller,
    SASRecConfig,
    SASRecModel,
    SequenceDataset,
    common_lists,
    count_items,
    export,
    labels_of,
    leave_one_out,
    load_interactions,
)


class Clock(TrainerCallback):
    """Wall and CPU seconds of every epoch."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.start = time.perf_counter(), time.process_time()

    def on_epoch_end(self, args, state, control, **kwargs):
        self.wall.append(time.perf_counter() - self.start[0])
        self.cpu.append(time.process_time() - self.start[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/amazon_scientific")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", default="benchmarks/results/ckd_cost.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    split = leave_one_out(load_interactions(options.data))
    items = len(split.catalogue)
    train = SequenceDataset(split.train, items)

    def sasrec(width: int, seed: int) -> SASRecModel:
        set_seed(seed)
        model = SASRecModel(SASRecConfig(num_items=items, hidden_size=width, similarity="cosine", temperature=0.07))
        model.set_catalogue(split.catalogue, count_items(split.train, items))
        return model

    teachers = {f"wide-{seed}": sasrec(128, seed) for seed in (1, 2)}
    tables = ("query_topk", "query_embeddings", "item_embeddings")
    told = {n: export(t, split.train, split=split, part="train", tables=tables, k=200) for n, t in teachers.items()}
    lists = common_lists(told, k=100, labels=labels_of(train))

    def ckd(**changes) -> dict:
        config = CKDMDSRConfig(curriculum=None, **changes)
        return {"methods": {"kd": CKDMDSR(config)}, "knowledge": told if config.candidates == "in_batch" else lists}

    runs = {
        "plain": ({}, False),
        "CKD, catalogue": (ckd(candidates="catalogue", temperature=1.0, score_normalization="none"), False),
        "CKD, catalogue and tail queries": (
            ckd(candidates="catalogue", temperature=1.0, score_normalization="none"),
            True,
        ),
        "CKD, in batch": (ckd(candidates="in_batch"), False),
    }
    clocks = {name: Clock() for name in runs}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for name, (settings, tail) in runs.items():
                arguments = DistillationArguments(
                    output_dir=folder,
                    num_train_epochs=1,
                    use_cpu=True,
                    disable_tqdm=True,
                    save_strategy="no",
                    tail_queries=tail,
                )
                distiller = Distiller(sasrec(64, 0), **settings)
                DistillationTrainer(distiller, arguments, train, callbacks=[clocks[name]]).train()
    plain = clocks["plain"]
    rows = {
        name: {
            "wall_s": [round(s, 3) for s in clock.wall],
            "cpu_s": [round(s, 3) for s in clock.cpu],
            "ratio_of_median_wall": round(statistics.median(clock.wall) / statistics.median(plain.wall), 3),
            "ratio_of_min_cpu": round(min(clock.cpu) / min(plain.cpu), 3),
        }
        for name, clock in clocks.items()
    }
    about = {
        "command": " ".join(["python", *sys.argv]),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": 1,
        "load_average_after": os.getloadavg(),
        "seed": 0,
    }
    Path(options.out).write_text(json.dumps({"about": about, "epochs": rows}, indent=1) + "\n", encoding="utf-8")
    for name, row in rows.items():
        ratios = f"x{row['ratio_of_median_wall']:.2f} (CPU x{row['ratio_of_min_cpu']:.2f})"
        print(f"{name:34s} median {statistics.median(row['wall_s']):.2f} s   {ratios}")


if __name__ == "__main__":
    main()

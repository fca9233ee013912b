"""What HetComp adds: an epoch beside a plain one, an update of its lists, bytes on disk. CiteULike, one thread.

    taskset -c 1 python benchmarks/hetcomp_cost.py

Six teachers with four moments each, lists of 100 drawn at random (what they hold changes no cost), student MF 20 wide,
1,024 pairs a batch. Runs take turns, step by step in the Trainer, so that a machine that slows down slows all of them.
Writes benchmarks/results/hetcomp/cost.json.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import torch
from heterogeneous_teachers import Bench
from journal import about
from method_cost import Clock, Run

from seqkd import Distiller, HetComp, HetCompConfig, Knowledge
from seqkd.knowledge.store.source import Source
from seqkd.method import Epoch

OUT = Path("benchmarks/results/hetcomp/cost.json")
TEACHERS, MOMENTS, LENGTH, SEEN = 6, 4, 100, 100
ROUNDS, STEPS = 5, 40
SETTINGS: dict[str, dict[str, int]] = {
    "hetcomp": {},
    "hetcomp, 128 queries": {"max_queries": 128},
    "hetcomp, 32 queries": {"max_queries": 32},
    "hetcomp, 64 queries": {"max_queries": 64},
    "hetcomp, 64 queries, 2,048 items": {"max_queries": 64, "max_items": 2048},
}


class Costs:
    """One student and random teachers."""

    def __init__(self, folder: str) -> None:
        self.bench = Bench(Namespace(data="citeulike", epochs=100, patience=5))
        self.folder = Path(folder)
        self.moments = {f"t{t}@{m}": self.lists(10 * t + m) for t in range(TEACHERS) for m in range(MOMENTS)}

    def lists(self, seed: int) -> Knowledge:
        """Items that users have not, in random order, and what they have in another."""
        draw, train = torch.Generator().manual_seed(seed), self.bench.data.train
        owned = [row.item_ids for row in train]
        seen = torch.zeros(len(owned), SEEN, dtype=torch.int32)
        topk = torch.zeros(len(owned), LENGTH, dtype=torch.int32)
        for at, items in enumerate(owned):
            had = torch.from_numpy(items.copy())
            some = had[torch.randperm(len(had), generator=draw)][:SEEN]
            seen[at, : len(some)] = some
            drawn = torch.randperm(train.num_items, generator=draw)[: LENGTH + len(had)] + 1
            topk[at] = drawn[~torch.isin(drawn, had)][:LENGTH]
        options = {"filter_seen": True, "tables": ["query_seen_topk", "query_topk"]}
        split = self.bench.data.split
        source = Source(f"random {seed}", "", split.fingerprint, "train", "dot", 1.0, options)
        tables = {"query_topk": topk, "query_seen_topk": seen, "query_scores": torch.zeros(topk.shape)}
        return Knowledge.from_tables(tables, source=source, catalogue=split.catalogue)

    def distiller(self, settings: dict[str, int] | None) -> Distiller:
        student = self.bench.model("mf", {"hidden_size": 20}, 0)
        if settings is None:
            return Distiller(student)
        method = HetComp(HetCompConfig(**settings))
        return Distiller(student, {"hetcomp": method}, {"hetcomp": 7.5}, self.moments, 0.0)

    def epoch(self, distiller: Distiller) -> list[float]:
        """Wall and CPU seconds of an epoch, its hook but no update among them."""
        settings = {"learning_rate": 5e-3, "decay": 1e-2, "every": 100}
        trainer = self.bench.trainer(distiller, settings, 0, self.folder)
        trainer.args.eval_strategy, trainer.args.load_best_model_at_end = "no", False
        trainer.args.save_strategy, trainer.args.max_steps = "no", STEPS
        trainer.callback_handler.callbacks = [
            callback
            for callback in trainer.callback_handler.callbacks
            if "EarlyStopping" not in type(callback).__name__
        ]
        clock = Clock(trainer, Run())
        trainer.add_callback(clock)
        trainer.train()
        return clock.epoch(trainer.epoch_steps)

    def update(self, trainer_of: Distiller) -> dict[str, list[float]]:
        """CPU seconds of an update, with and without the student's own ranking, over some epochs."""
        settings = {"learning_rate": 5e-3, "decay": 1e-2, "every": 100}
        trainer = self.bench.trainer(trainer_of, settings, 0, self.folder)
        trainer.begin_epoch()
        lists, told = trainer_of.methods["hetcomp"].lists, {"with the student's ranking": [], "without": []}
        ranked = trainer._student_topk(50)
        for number in range(10, 60, 10):
            for name, topk in (("with the student's ranking", trainer._student_topk), ("without", lambda k: ranked)):
                lists.updated.fill_(number - 10)
                epoch = Epoch(number, 100, torch.Generator(), trainer._positives, topk)
                started = time.process_time()
                lists.begin(epoch)
                told[name].append(round(time.process_time() - started, 3))
        return told

    def bytes_on_disk(self) -> dict[str, float]:
        """Of one moment, per user, and of the dense matrix it stands for."""
        knowledge, folder = self.moments["t0@0"], self.folder / "moment"
        knowledge.save_pretrained(folder)
        size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        return {"lists": round(size / knowledge.num_queries), "dense": 4 * self.bench.data.train.num_items}


def main() -> None:
    torch.set_num_threads(1)
    started = time.time()
    with tempfile.TemporaryDirectory() as folder:
        costs = Costs(folder)
        runs: dict[str, dict[str, int] | None] = {"student alone": None, **SETTINGS}
        clocks: dict[str, list[list[float]]] = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, settings in runs.items():
                clocks[name].append(costs.epoch(costs.distiller(settings)))
        updates = costs.update(costs.distiller({}))
        stored = costs.bytes_on_disk()
    alone = clocks["student alone"]
    epochs = {
        name: {
            "wall_s": [round(one[0], 3) for one in times],
            "cpu_s": [round(one[1], 3) for one in times],
            "ratio": round(statistics.median(mine[0] / base[0] for mine, base in zip(times, alone, strict=True)), 2),
        }
        for name, times in clocks.items()
    }
    facts = {**about(started), "threads": 1, "load_average_after": os.getloadavg(), "rounds": ROUNDS}
    users = len(costs.bench.data.split.users)
    told = {"about": facts, "users": users, "teachers": TEACHERS, "moments": MOMENTS, "epochs": epochs}
    told |= {"update_cpu_s": updates, "bytes_per_user": stored}
    OUT.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

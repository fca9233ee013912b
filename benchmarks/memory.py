"""Peak memory of a training step as the catalogue grows: sampled softmax and full softmax, one process per size.

    PYTHONPATH=src python benchmarks/memory.py

Each measurement is a fresh process: the largest resident size of its life (`ru_maxrss`) after a few steps, less what
it was when everything was imported and nothing made. What any dense training of an item table must hold is listed
apart: the table, its gradient, and the two moments of Adam. The rest is what a step costs beside the table; it shrinks
where the gradient of a large table is made only after the activations are gone, so that the two never meet.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

HERE = Path(__file__).resolve().parent
SIZES = {"sampled_softmax": (10_000, 30_000, 100_000, 300_000, 1_000_000), "softmax": (10_000, 30_000)}
WIDTH, SEQUENCES, LONGEST, NEGATIVES, STEPS = 64, 256, 50, 256, 2
NAMES = {"sampled_softmax": f"sampled softmax, {NEGATIVES} negatives", "softmax": "full softmax, in chunks"}
COLOURS = {"sampled_softmax": "#1f8a5b", "softmax": "#d9822b"}
MB = 1e6
# Without these the allocator keeps freed blocks for later: its habits would be measured, not what a step needs.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}
THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def peak() -> int:
    """Bytes; macOS counts `ru_maxrss` in bytes, Linux in kilobytes."""
    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(loss_type: str, items: int, seed: int) -> dict:
    """Train a few steps on random histories in this very process."""
    import numpy as np  # the parent process stays small: it must not lend its own peak to its children
    import torch

    from seqkd import Distiller, SASRecConfig, SASRecModel
    from seqkd.batches.collators import Sequence

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    draw = np.random.default_rng(seed)
    baseline = peak()
    config = SASRecConfig(
        num_items=items, hidden_size=WIDTH, max_position_embeddings=LONGEST, loss_type=loss_type,
        num_negatives=NEGATIVES,
    )  # fmt: skip
    model = SASRecModel(config)
    model.item_counts[1:] = torch.from_numpy(draw.integers(0, 100, items)).float()
    distiller = Distiller(model)
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=1e-3, fused=True)  # what the Trainer uses
    collate = model.collator()
    made, queries = peak(), 0
    for _ in range(STEPS):
        lengths = draw.integers(5, LONGEST + 1, SEQUENCES)
        rows = [Sequence(draw.integers(1, items + 1, length).astype(np.int32), 1, 0) for length in lengths]
        batch = collate(rows)
        queries = max(queries, len(batch["targets"]))
        distiller(**batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    table = model.item_embedding.weight.numel() * 4
    used = peak() - baseline
    return {
        "loss_type": loss_type,
        "items": items,
        "queries_of_a_step": queries,
        "imported_mb": round(baseline / MB, 1),
        "model_made_mb": round((made - baseline) / MB, 1),
        "peak_mb": round(used / MB, 1),
        "table_mb": round(table / MB, 1),
        "table_gradient_mb": round(table / MB, 1),
        "table_adam_moments_mb": round(2 * table / MB, 1),
        "beside_the_table_mb": round((used - 4 * table) / MB, 1),
    }


def in_a_fresh_process(loss_type: str, items: int, seed: int) -> dict:
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", loss_type, str(items), "--seed", str(seed)]
    source = os.pathsep.join([str(HERE.parent / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {**os.environ, **ALLOCATOR, **THREADS, "PYTHONPATH": source, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{loss_type} with {items} items failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def bytes_per_item(runs: list[dict], column: str) -> float:
    """Slope between the smallest and the largest catalogue."""
    first, last = runs[0], runs[-1]
    return round((last[column] - first[column]) * MB / (last["items"] - first["items"]), 2)


def draw(runs: list[dict], path: Path) -> None:
    from matplotlib.figure import Figure  # only here: a measuring process must not load it

    drawing = Figure(figsize=(7.2, 4.4), dpi=150, layout="constrained")
    axes = drawing.subplots()
    sampled = [run for run in runs if run["loss_type"] == "sampled_softmax"]
    axes.plot(
        [run["items"] for run in sampled], [4 * run["table_mb"] for run in sampled],
        "--", color="#8a8a8a", label="item table, its gradient, Adam's two moments",
    )  # fmt: skip
    for loss_type, name in NAMES.items():
        shown = [run for run in runs if run["loss_type"] == loss_type]
        axes.plot(
            [run["items"] for run in shown], [run["beside_the_table_mb"] for run in shown],
            "o-", color=COLOURS[loss_type], label=f"beside the table: {name}",
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="items in the catalogue", ylabel="peak memory of a training step, MB")
    axes.set_title(f"SASRec, {WIDTH} wide, {SEQUENCES} sequences a step (synthetic histories)", fontsize=10)
    axes.grid(True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8.5)
    drawing.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", nargs=2, metavar=("LOSS", "ITEMS"), help="one measurement, in this process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "memory.json")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure[0], int(options.measure[1]), options.seed)))
        return
    result = {
        "what": "peak resident memory of training steps less that of the imported program, MB = 1e6 bytes; "
        "synthetic histories",
        "command": shlex.join(["python", "benchmarks/memory.py", *sys.argv[1:]]),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "seed": options.seed,
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy")}
        | {"python": platform.python_version(), "system": platform.system()},
        "settings": {
            "hidden_size": WIDTH, "num_hidden_layers": 2, "sequences_of_a_step": SEQUENCES, "lengths": [5, LONGEST],
            "num_negatives": NEGATIVES, "steps": STEPS, "optimizer": "AdamW, fused", "threads": 1, **ALLOCATOR,
        },
        "runs": [],
    }  # fmt: skip
    for loss_type, sizes in SIZES.items():
        for items in sizes:
            result["runs"].append(in_a_fresh_process(loss_type, items, options.seed))
            print(result["runs"][-1], flush=True)
    result["bytes_per_item"] = {
        loss_type: {
            column.removesuffix("_mb"): bytes_per_item(
                [r for r in result["runs"] if r["loss_type"] == loss_type], column
            )
            for column in ("peak_mb", "table_mb", "beside_the_table_mb")
        }
        for loss_type in SIZES
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(result["runs"], options.out.with_suffix(".png"))
    print(f"{result['bytes_per_item']}\nwritten to {options.out}")


if __name__ == "__main__":
    main()

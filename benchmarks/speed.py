"""Side by side on one thread: a SASRec training epoch and a full-catalogue evaluation, here, in RecBole, in RecTools.

    python benchmarks/speed.py --data ../shared/data/amazon_scientific

Each peer runs in its own virtual environment under `.venv-peers/`, made from `peers/requirements-<name>.txt` at the
first run and kept. seqkd runs in the environment of the Python that started this, once before the peers and once after
them, so that a machine that changes its pace in between shows. Results are written after every runner: when one fails,
its error stands in its place and the others keep their numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = ("recbole", "rectools")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def environment(name: str, cache: Path, base_python: str) -> Path:
    """The Python of a peer's virtual environment, made or renewed when its requirements are not the ones installed."""
    requirements = HERE / "peers" / f"requirements-{name}.txt"
    home = cache / name
    stamp, python = home / "installed.sha256", home / "bin" / "python"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not (stamp.is_file() and stamp.read_text() == wanted):
        print(f"{name}: making {home} ...", flush=True)
        subprocess.run([base_python, "-m", "venv", "--clear", str(home)], check=True, capture_output=True, text=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
        subprocess.run(install, check=True, capture_output=True, text=True)
        stamp.write_text(wanted)
    return python


def measure(name: str, python: Path, options: argparse.Namespace) -> dict:
    """Run one runner; its last JSON line, with an `error` beside it when it did not end well."""
    epochs = options.epochs if name == "seqkd" else options.peer_epochs
    command = [str(python), str(HERE / "peers" / f"run_{name}.py"), "--data", str(options.data.resolve())]
    command += ["--epochs", str(epochs), "--evals", str(options.evals)] + ["--smoke"] * options.smoke
    settings = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1"), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    if name == "seqkd":
        settings["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    load_before, started, error = os.getloadavg()[0], time.perf_counter(), None
    with subprocess.Popen(
        command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        try:
            output, complaints = process.communicate(timeout=options.timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            output, complaints = process.communicate()
            error = f"stopped after {options.timeout} s"
    if error is None and process.returncode != 0:
        error = f"exit status {process.returncode}: {last_line(complaints)}"
    lines = [line for line in output.splitlines() if line.startswith('{"name":')]
    report = json.loads(lines[-1]) if lines else {"name": name}
    report["run_s"] = round(time.perf_counter() - started, 1)
    report["load_average_1min"] = {"before": round(load_before, 2), "after": round(os.getloadavg()[0], 2)}
    return {**report, "error": error} if error else report


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return answer.stdout.strip() or "unknown"


def pooled(runs: list[dict]) -> dict:
    """Minimum and median over all repeats of all runs of one library; a measurement nobody has is absent."""
    summary: dict = {}
    for short, key in (("epoch", "epochs"), ("eval", "evals")):
        wall = [value for run in runs for value in run.get(f"{key}_s", [])]
        cpu = [value for run in runs for value in run.get(f"{key}_cpu_s", [])]
        if wall:
            summary[short] = {
                "repeats": len(wall),
                "min_s": min(wall),
                "median_s": round(median(wall), 4),
                "min_cpu_s": min(cpu),
                "median_cpu_s": round(median(cpu), 4),
            }
    return summary


def ratios(summary: dict[str, dict]) -> dict[str, dict]:
    """How many times longer each peer takes than seqkd: by median and minimum of wall time, by minimum of CPU time."""
    ours = summary.get("seqkd", {})
    keys = ("median_s", "min_s", "min_cpu_s")
    shares: dict[str, dict] = {}
    for name in PEERS:
        for task in ("epoch", "eval"):
            theirs = summary.get(name, {}).get(task)
            if theirs and task in ours:
                by = {f"by_{key}": round(theirs[key] / ours[task][key], 2) for key in keys}
                shares.setdefault(name, {})[task] = by
    return shares


def table(result: dict) -> str:
    rows = [f"{'':10}{'epoch median':>14}{'min':>9}{'ratio':>8}{'eval median':>14}{'min':>9}{'ratio':>8}{'targets':>9}"]
    for name in result["summary"]:
        runs = [run for run in result["runs"] if run["name"] == name]
        row = f"{name:10}"
        for task, width in (("epoch", 14), ("eval", 14)):
            times = result["summary"].get(name, {}).get(task)
            ratio = result["ratios"].get(name, {}).get(task, {}).get("by_median_s")
            row += f"{times['median_s']:>{width}.2f}{times['min_s']:>9.2f}" if times else f"{'-':>{width}}{'-':>9}"
            row += f"{ratio:>7.1f}x" if ratio else f"{'':>8}"
        targets = [run["n_targets"] for run in runs if run.get("n_targets")]
        rows.append(row + (f"{targets[0]:>9}" if targets else f"{'-':>9}"))
        rows += [f"{'':10}failed: {run['error']}" for run in runs if "error" in run]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with interactions.parquet")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "speed.json")
    parser.add_argument("--epochs", type=int, default=5, help="timed epochs of seqkd, in each of its two runs")
    parser.add_argument("--peer-epochs", type=int, default=2, help="timed epochs of each peer")
    parser.add_argument("--evals", type=int, default=3, help="timed evaluations per run")
    parser.add_argument("--only", nargs="+", choices=("seqkd", *PEERS), default=("seqkd", *PEERS))
    parser.add_argument("--cache", type=Path, default=ROOT / ".venv-peers", help="where the peers' environments live")
    parser.add_argument("--peer-python", default=sys.executable, help="Python to make them with (RecBole: 3.9 to 3.11)")
    parser.add_argument("--timeout", type=float, default=420.0, help="seconds for one runner")
    parser.add_argument("--smoke", action="store_true", help="a few batches, one repeat, nothing written")
    options = parser.parse_args()
    if options.smoke:
        options.epochs = options.peer_epochs = options.evals = 1

    result = {
        "what": "one SASRec training epoch and one full-catalogue evaluation of the valid users, one thread, seconds",
        "command": shlex.join(["python", "benchmarks/speed.py", *sys.argv[1:]]),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "system": platform.system()},
        "data": options.data.name,
        "threads": {**dict.fromkeys(THREAD_VARIABLES, "1"), "torch.set_num_threads": 1},
        "runs": [],
        "summary": {},
        "ratios": {},
    }
    order = [name for name in ("seqkd", *PEERS, "seqkd") if name in options.only]
    if len(options.only) == 1:
        order = order[:1]
    for name in order:
        try:
            python = Path(sys.executable) if name == "seqkd" else environment(name, options.cache, options.peer_python)
            run = measure(name, python, options)
        except (subprocess.CalledProcessError, OSError) as failure:
            said = failure.stderr if isinstance(failure, subprocess.CalledProcessError) else str(failure)
            run = {"name": name, "error": f"environment not made: {last_line(said or '')}"}
        result["runs"].append(run)
        result["summary"] = {key: pooled([run for run in result["runs"] if run["name"] == key]) for key in options.only}
        result["ratios"] = ratios(result["summary"])
        if not options.smoke:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"{name}: {run.get('run_s', 0)} s, {run.get('error', 'done')}", flush=True)
    print(table(result))
    print("smoke run: a few batches only, these times mean nothing" if options.smoke else f"written to {options.out}")


if __name__ == "__main__":
    main()

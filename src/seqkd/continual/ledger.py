"""What is done stays done: the stages of a block, each a folder that appears when its stage is complete."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from ..processes import this_process

logger = logging.getLogger(__name__)
COST = "cost.json"


class Ledger:
    """The stages of one block under a folder.

    A stage writes into a folder of another name, which is renamed at its end: one that was interrupted has left
    nothing that counts, and is run again from its beginning, with the same seed and so the same result.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, stage: str, work: Callable[[Path], Mapping[str, Any] | None]) -> Path:
        """The folder of a stage; `work(folder)` fills it unless it is there. What `work` returns is noted beside cost.

        Seconds, the most memory that the process has held so far (MB), bytes of what was written.
        """
        done, state = self.folder / stage, this_process()
        if done.exists():
            return done
        partial = done.with_name(f"{done.name}.partial")
        if state.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        state.wait_for_everyone()
        started, cpu = time.perf_counter(), time.process_time()
        noted = work(partial) or {}
        cost = {
            "seconds": round(time.perf_counter() - started, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "peak_memory_mb": peak_memory_mb(),
        }
        state.wait_for_everyone()
        if state.is_main_process:  # others would look while it clears up
            cost["bytes_written"] = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
            (partial / COST).write_text(json.dumps({**cost, **noted}, indent=2), encoding="utf-8")
            os.replace(partial, done)
            logger.info("  %s: %.0f s", stage, cost["seconds"])
        state.wait_for_everyone()
        return done

    def costs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What each finished stage took, in the order in which they ended."""
        paths = sorted(self.folder.rglob(COST), key=lambda path: path.stat().st_mtime_ns)
        return (
            (path.parent.relative_to(self.folder).as_posix(), json.loads(path.read_text(encoding="utf-8")))
            for path in paths
        )


def peak_memory_mb() -> int:
    """The most memory that this process has held."""
    if sys.platform == "win32":
        return round(psutil.Process().memory_info().peak_wset / 2**20)
    import resource  # not on Windows

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))

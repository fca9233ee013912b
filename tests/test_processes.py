"""Who is told to be the main process, by a launcher and without one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from seqkd.processes import this_process

SCRIPT = """
import sys
from pathlib import Path
from seqkd.processes import leave_process_group, this_process
mine = this_process()
told = f"process {mine.process_index} of {mine.num_processes}, main: {mine.is_main_process}"
Path(sys.argv[1], f"told-{mine.process_index}").write_text(told)
leave_process_group()
"""


def test_alone_it_is_the_main_one():
    assert this_process().is_main_process and this_process().num_processes == 1


@pytest.mark.slow
def test_of_two_one_is_the_main_one(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(tmp_path / "script.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    told = [path.read_text() for path in sorted(tmp_path.glob("told-*"))]
    assert told == ["process 0 of 2, main: True", "process 1 of 2, main: False"]

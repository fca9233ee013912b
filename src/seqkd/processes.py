"""The processes that a launcher started: how a program finds itself among them, and how it ends."""

from __future__ import annotations

import gc

import torch
from accelerate import PartialState


def this_process() -> PartialState:
    """This process among those of the launcher.

    On a machine without accelerator a bare `PartialState()` finds no others: each would be the main one.
    """
    return PartialState(cpu=not torch.accelerator.is_available())


def leave_process_group() -> None:
    """Wait for the communication threads and end them; call it last, when no trainer is referred to any more.

    A thread of gloo frees the tensors of the last collective a little after that is over. If Python shuts down in
    this moment, the process aborts ("terminate called without an active exception") although all its work is done
    (pytorch issue 190489). A trainer that is still there would keep the group, and so the threads, alive.
    """
    gc.collect()  # trainers are in reference cycles
    this_process().destroy_process_group()

"""The host that a command works with."""

from __future__ import annotations

from pathlib import Path

import torch

from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.training.processes import ALONE, Processes


def open_host(out: Path, checkpoint: Path | None = None, processes: Processes = ALONE) -> StandaloneHost:
    """The standalone host; with the embedded model it computes on one thread.

    That model is too small to be shared out: on a busy machine threads wait for each other a hundred times longer than
    they compute. And one thread adds up in one order, so that the same seed gives the same file whatever the machine's
    number of cores.
    """
    host = StandaloneHost(out, checkpoint)
    # Of several processes each has a GPU of its own.
    host.device = processes.device or host.device
    if host.is_embedded:
        torch.set_num_threads(1)
    return host

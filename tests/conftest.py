"""What every test runs under."""

from __future__ import annotations

import gc
import os
import threading
from unittest.mock import patch

import pytest
import torch

from lib_trainer.adapter.kernels import measure
from lib_trainer.models import device
from tests.waiting import PATIENCE_S

# The models here are small: two threads waiting for each other cost more than one alone.
torch.set_num_threads(1)

# Tests compare with figures of float32, also on a CPU that is faster in bfloat16. It is measured once a process.
with patch.object(device, "_seconds_of_a_product", lambda dtype: 1.0):
    device.cpu_is_faster_in_bf16()

# Tests compare the bytes of runs, and measured times differ: where all are the same, the first strategy is taken.
patch.object(measure, "seconds_of", lambda run, device: 1.0).start()

# Each process imports torch, gradio and diffusers: about 1 GB of memory, and seconds that more of them do not win back.
MOST_PROCESSES = 4


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes `-n auto` starts: one more than processors, since tests in a browser mostly wait."""
    return min(MOST_PROCESSES, (os.cpu_count() or 1) + 1)


def pytest_collection_finish() -> None:
    """Every give-back of a model collects garbage: that need not look through what the imports have made."""
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Lets the pages' threads finish: cut off within torch, a daemon thread would abort the process at its exit."""
    workers = [thread for thread in threading.enumerate() if thread.name == "AnyIO worker thread"]
    for thread in workers:
        thread.stop()
    for thread in workers:
        thread.join(PATIENCE_S)

"""What every test runs under."""

from __future__ import annotations

import os

import pytest
import torch

# The models here are small: two threads waiting for each other cost more than one alone.
torch.set_num_threads(1)

# Each process imports torch, gradio and diffusers: about 1 GB of memory, and seconds that more of them do not win back.
MOST_PROCESSES = 4


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """How many processes `-n auto` starts."""
    return min(MOST_PROCESSES, os.cpu_count() or 1)

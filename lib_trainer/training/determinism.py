"""The same sums in the same order on a GPU, where PyTorch has such kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cudnn
from torch.utils import deterministic


@contextmanager
def deterministic_algorithms(wanted: bool, device: torch.device) -> Iterator[None]:
    """While entered, convolutions and attention add up in one order on a GPU; nothing changes on a CPU.

    cuDNN and the backward of attention otherwise add in the order in which threads finish. An operation without such a
    kernel warns and runs as it is. PyTorch's settings belong to the whole process and are restored.
    """
    # On a CPU the order depends on the number of threads alone.
    if not wanted or device.type == "cpu":
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    kernels, fills = (cudnn.deterministic, cudnn.benchmark), deterministic.fill_uninitialized_memory
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Benchmarks pick another algorithm each time; filling new tensors costs time and decides nothing here.
        cudnn.deterministic, cudnn.benchmark = True, False
        deterministic.fill_uninitialized_memory = False
        yield
    finally:
        deterministic.fill_uninitialized_memory = fills
        cudnn.deterministic, cudnn.benchmark = kernels
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])

"""What a worker runs for `card`: training steps as other trainers take them, in as much memory as a GPU has."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from benchmarks.cases import Implementation
from benchmarks.steps import StepLoad
from lib_trainer.memory.plan import CONTEXT_BYTES, GIB


class CardLoad:
    """Steps with gradient checkpointing and 8-bit AdamW, which is what sd-scripts' guides advise for small GPUs."""

    def __init__(self, implementation: Implementation, task: dict[str, Any]) -> None:
        self._on_gpu = task["compute"]["device"] == "cuda"
        self._load = StepLoad(implementation, {**task, "checkpointing": True, "optimizer": "AdamW8bit"})
        if self._on_gpu:
            limit_allocator(task["budget_bytes"])

    def steps(self, count: int) -> dict[str, float | None]:
        """`first_s` to the end of the first step; `step_s`, the median of the others; `reserved_bytes` at most.

        `step_s` is None if memory ran out.
        """
        seconds: list[float] = []
        try:
            for _ in range(count):
                started = time.perf_counter()
                self._load.run()
                seconds.append(time.perf_counter() - started)
        except torch.cuda.OutOfMemoryError:
            seconds = []
        reserved = torch.cuda.max_memory_reserved() if self._on_gpu else 0
        first_s = self._load.adapted_s + seconds[0] if seconds else None
        step_s = statistics.median(seconds[1:]) if seconds[1:] else None
        return {"first_s": first_s, "step_s": step_s, "reserved_bytes": reserved}


def limit_allocator(budget_bytes: int) -> None:
    """Leaves torch as much of the GPU as one of that size has, without the CUDA context."""
    total = torch.cuda.get_device_properties(torch.device("cuda")).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, (budget_bytes - CONTEXT_BYTES) / total))


def gib(count: float) -> str:
    return f"{count / GIB:.2f} GiB"

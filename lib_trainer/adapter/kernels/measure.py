"""Times the strategies of a layer on the device that is to compute it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from lib_trainer.adapter.kernels.autograd import LayerOp, ReadWeight, Strategy
from lib_trainer.models.offload import Int8Weight

# The first run prepares kernels and the allocator.
_RUNS = 4
# A run as long as this is timed once: what is prepared in it no longer counts.
_LONG_SECONDS = 0.02
# Another strategy must be faster by this than the one that computes least: near ties fall the same way every time.
_LEAST_GAIN = 0.9


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """How long one run takes on the device."""
    if device.type != "cuda":
        # One thread's own time is the same whatever else the machine does.
        clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
        start = clock()
        run()
        return clock() - start
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record(torch.cuda.current_stream(device))
    run()
    after.record(torch.cuda.current_stream(device))
    after.synchronize()
    return before.elapsed_time(after) / 1000


def fastest(strategies: Mapping[str, Strategy], operation: LayerOp, x: Tensor, factors: Mapping[str, Tensor]) -> str:
    """The name of the strategy that takes least for forward and backward of an input like x.

    The values are made up: reading the layer's own weight could move it to the device. The strategies take turns. One
    that the device has too little memory for is left out; the first is the answer where none can run.

    Args:
        strategies: the first one is taken unless another is clearly faster.
        factors: of these shapes; their values are not read.
    """
    with _apart(x.device):
        made_up, read = (
            _made_up(x.shape, x.dtype, x.device),
            _MadeUpWeight(_made_up(operation.shape, x.dtype, x.device)),
        )
        like = {name: _made_up(factor.shape, factor.dtype, x.device) for name, factor in factors.items()}
        best: dict[str, float] = {}
        for name, strategy in strategies.items():
            try:
                best[name] = _least_seconds(strategy, read, made_up, like)
            except torch.cuda.OutOfMemoryError:
                torch.cuda.empty_cache()
    first = next(iter(strategies))
    if not best:
        return first
    found = min(best, key=best.__getitem__)
    return found if first not in best or best[found] < _LEAST_GAIN * best[first] else first


@dataclass(frozen=True)
class _MadeUpWeight:
    """A weight that is read in any format."""

    weight: Tensor

    def __call__(self, like: Tensor) -> tuple[Tensor, None]:
        return self.weight, None

    def int8(self, like: Tensor) -> tuple[Int8Weight, None]:
        values = torch.ones(self.weight.shape, dtype=torch.int8, device=like.device)
        return Int8Weight(values, self.weight.new_ones(len(self.weight), 1, dtype=torch.float32)), None


def _least_seconds(strategy: Strategy, read: ReadWeight, x: Tensor, factors: dict[str, Tensor]) -> float:
    def run() -> None:
        y = strategy.forward(read, x, factors)
        strategy.backward(read, x, factors, y, needs_x=True)

    found = []
    for _ in range(_RUNS):
        found.append(seconds_of(run, x.device))
        if found[0] > _LONG_SECONDS:
            break
    return min(found)


def _made_up(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Not drawn: the run's random state stays as it is. Not empty: numbers near zero are slow on CPUs.
    return torch.full(tuple(shape), 0.01, dtype=dtype, device=device)


@contextmanager
def _apart(device: torch.device) -> Iterator[None]:
    """Nothing that surrounds the layer sees what is measured, gradient checkpointing above all.

    It counts the tensors that autograd saves, forward and when it computes a block again, where nothing is measured.
    """
    keep = torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor)
    with (
        _disable_current_modes(),
        torch.inference_mode(False),
        torch.no_grad(),
        keep,
        torch.autocast(device.type, enabled=False),
    ):
        yield

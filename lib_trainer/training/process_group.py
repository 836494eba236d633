"""Several processes, by PyTorch's distributed engine: NCCL between GPUs, Gloo between CPUs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lib_trainer.errors import UserError
from lib_trainer.training.processes import Dismissed, Processes, ProcessLost

T = TypeVar("T")

# Between two exchanges of one step. Whoever hangs for so long is lost.
_STEP_TIMEOUT = timedelta(minutes=10)
# For the first process, which caches, evaluates and draws while the others wait. One that is killed is noticed at once.
_PATIENCE = timedelta(days=7)
# In which the others must hear that the run is over; torchrun ends who does not.
_GOODBYE = timedelta(seconds=10)
_OVER, _GOES_ON = 0, 1
# Gradients travel together, in parts that take little memory besides.
_BUCKET_ELEMENTS = 2**22
_OTHER_ORDER = "backward came to the layers in another order than in the other processes"


class ProcessGroup(Processes):
    """Joins the processes that torchrun has started, and waits for all of them.

    Args:
        device: that this process trains on.
        where: further arguments of `init_process_group`; by default all is in the environment.
    """

    def __init__(self, device: torch.device | None = None, **where: object) -> None:
        backend = "cpu:gloo,cuda:nccl" if device and dist.is_nccl_available() else "gloo"
        dist.init_process_group(backend, timeout=_STEP_TIMEOUT, **where)
        # A group of its own, because its waits are long and must not touch the device.
        self._words = dist.new_group(backend="gloo", timeout=_PATIENCE)
        self.rank, self.count, self.device = dist.get_rank(), dist.get_world_size(), device
        if device:
            # NCCL takes its memory with the first sum: now, so that the memory plan finds it taken.
            dist.all_reduce(torch.zeros(1, device=device))
        # Kept: a thread of Gloo that frees the last word would wait for this one, which waits for it in `leave`.
        self._said = torch.tensor(_GOES_ON)
        # Of the layers of a fused backward pass, in the step under way; and in every step.
        self._seen: list[int] = []
        self._order: list[int] = []

    def of_first(self, value: T) -> T:
        self._word()
        values = [value]
        with _losses_named():
            dist.broadcast_object_list(values, 0, group=self._words)
        return values[0]

    def gathered(self, value: T) -> list[T]:
        values: list[T] = [value] * self.count
        with _losses_named():
            dist.all_gather_object(values, value, group=self._words)
        return values

    @contextmanager
    def first_ahead(self, *, asked: bool) -> Iterator[None]:
        if asked and self.rank:
            self._word()
        yield
        if asked and not self.rank:
            self._word()

    def begin(self, parameters: Iterable[Tensor]) -> None:
        self._word()
        with _losses_named(), torch.no_grad():
            for parameter in parameters:
                dist.broadcast(parameter.detach(), 0)

    def begin_step(self) -> None:
        self._word()
        if self._seen and not self._order:
            self._order = self._seen
            if any(order != self._order for order in self.gathered(self._order)):
                raise RuntimeError(_OTHER_ORDER)
        self._seen = []

    @torch.no_grad()
    def sum(self, tensors: Sequence[Tensor]) -> None:
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            with _losses_named():
                dist.all_reduce(flat)
            for tensor, summed in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(summed.view_as(tensor))

    def sum_layer(self, number: int, tensors: Sequence[Tensor]) -> None:
        # Sums of other layers would mix without an error where the shapes are the same.
        if self._order and number != self._order[len(self._seen)]:
            raise RuntimeError(_OTHER_ORDER)
        self._seen.append(number)
        self.sum(tensors)

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        # Module dropout leaves layers without gradients, other ones in each process.
        counts = torch.tensor([int(parameter.grad is not None) for parameter in parameters])
        self.sum([counts])
        shared = [parameter for parameter, count in zip(parameters, counts.tolist(), strict=True) if count]
        for parameter in shared:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.sum([parameter.grad for parameter in shared])

    def dismiss(self) -> None:
        try:
            if not self.rank:
                dist.broadcast(self._said.fill_(_OVER), 0, group=self._words, async_op=True).wait(_GOODBYE)
        except RuntimeError:
            # Those who do not listen any more: torchrun ends them.
            pass

    def leave(self) -> None:
        """Frees what the engine holds."""
        dist.destroy_process_group()

    def _word(self) -> None:
        """The first process says that the run goes on, and the others hear it. Raises Dismissed if it does not."""
        with _losses_named():
            dist.broadcast(self._said, 0, group=self._words)
        if self._said == _OVER:
            raise Dismissed


def device_of_process() -> torch.device | None:
    """The GPU of this process, one for each; None on a machine without. Raises UserError where there are too few."""
    if not torch.cuda.is_available():
        return None
    number, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= gpus:
        raise UserError(
            f"Process {number + 1} of this machine has no GPU: there are {gpus}.",
            f"Start torchrun with --nproc_per_node={gpus}.",
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


@contextmanager
def _losses_named() -> Iterator[None]:
    """Raises ProcessLost for what the engine raises when another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessLost from error


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    elements = 0
    for tensor in tensors:
        if bucket and elements + tensor.numel() > _BUCKET_ELEMENTS:
            yield bucket
            bucket, elements = [], 0
        bucket.append(tensor)
        elements += tensor.numel()
    if bucket:
        yield bucket

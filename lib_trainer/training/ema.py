"""An exponential moving average of the adapter's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lib_trainer.adapter.attach import Adapter


class MovingAverage:
    """a ← d·a + (1 − d)·w after each step, with d = min(decay, (1 + n) / (10 + n)) at step n.

    The decay rises so that a short run does not keep its start, as in diffusers' `EMAModel`.

    Attributes:
        tensors: parameter name -> its average, on the parameter's device.
    """

    def __init__(self, adapter: Adapter, decay: float) -> None:
        self._adapter, self._decay = adapter, decay
        self.tensors = {name: value.detach().clone() for name, value in adapter.named_parameters()}

    @torch.no_grad()
    def update(self, number: int) -> None:
        """Takes in the weights after step `number`."""
        decay = min(self._decay, (1 + number) / (10 + number))
        torch._foreach_lerp_(list(self.tensors.values()), list(self._adapter.parameters()), 1 - decay)

    def copy_in(self) -> None:
        """The adapter takes the averaged weights."""
        self._load(self.tensors)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the adapter has the averaged weights; its own come back exactly."""
        # On the CPU: the plan has no room for a third adapter on the GPU.
        own = {name: value.detach().to("cpu", copy=True) for name, value in self._adapter.named_parameters()}
        self.copy_in()
        try:
            yield
        finally:
            self._load(own)

    @torch.no_grad()
    def _load(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self._adapter.named_parameters():
            parameter.copy_(tensors[name])

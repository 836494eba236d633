"""Frozen weights that take less of the device: stored in 8 bits, or left on the CPU and fetched for each use.

The host's own weights are not touched: they stay on the CPU, and what the device gets is a copy that is dropped in the
end. Only `Layer` weights are treated so, which are nearly all of a UNet; the rest is copied as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lib_trainer.models.base import Layer
from lib_trainer.models.placement import Placement

_INT8_LARGEST = 127


@dataclass(frozen=True)
class Int8Weight:
    """A weight as whole numbers −127 … 127 and one scale for each row of outputs.

    On normally distributed weights that is closer than float8: its steps are even, and float8 has three bits between
    two powers of two. `tests/host/test_lean.py` measures both.

    Attributes:
        numbers: int8, in the weight's shape.
        scale: float32 (out, 1[, 1, 1]).
    """

    numbers: Tensor
    scale: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Int8Weight:
        full = weight.float()
        scale = full.abs().amax(dim=tuple(range(1, full.ndim)), keepdim=True).clamp(min=1e-12) / _INT8_LARGEST
        return cls((full / scale).round().to(torch.int8), scale)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.numbers, self.scale

    def dense(self, like: Tensor) -> Tensor:
        return self.numbers.to(like.dtype).mul_(self.scale.to(like.dtype))


@dataclass(frozen=True)
class PlainWeight:
    """A weight in the host's own number format."""

    numbers: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.numbers,)

    def dense(self, like: Tensor) -> Tensor:
        return self.numbers.to(like.dtype)


class Weight(Protocol):
    """A frozen weight, however it is stored."""

    @property
    def tensors(self) -> tuple[Tensor, ...]: ...

    def dense(self, like: Tensor) -> Tensor:
        """In the dtype of `like`."""


class OffloadedWeights:
    """The weights of a model's layers under a `Placement`, ready to be read.

    Args:
        layers: with their own weights wherever the host left them.
        device: where they are computed with.
    """

    def __init__(self, layers: Sequence[Layer], device: torch.device, placement: Placement) -> None:
        streamed = spread_out(layers, placement.streamed)
        self._resident: dict[str, Weight] = {}
        self._streamed = _Fetcher(device)
        for layer in layers:
            weight = layer.module.weight.detach()
            kept: Weight = Int8Weight.of(weight.to(device)) if placement.int8 else PlainWeight(weight)
            if layer.name in streamed:
                self._streamed.keep(layer.name, kept)
            else:
                # A weight that lies on the device already is copied too, so that the host's own can leave it.
                self._resident[layer.name] = _copied(kept, device)

    def holds(self, layer: Layer) -> bool:
        return layer.name in self._resident or self._streamed.holds(layer.name)

    def read(self, layer: Layer, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """The layer's weight and bias in the dtype of `like`, on the device."""
        weight = self._resident.get(layer.name) or self._streamed.fetch(layer.name)
        bias = layer.module.bias
        return weight.dense(like), None if bias is None else bias.detach().to(like)

    def streamed_tensors(self) -> list[Tensor]:
        """What is kept on the CPU."""
        return self._streamed.kept_tensors()

    def close(self) -> None:
        self._resident.clear()
        self._streamed.close()


def spread_out(layers: Sequence[Layer], share: float) -> set[str]:
    """Names of layers that hold `share` of the weights, spread evenly: the layers between give time to fetch."""
    total = sum(math.prod(layer.shape) for layer in layers)
    chosen, seen, taken = set(), 0, 0
    for layer in layers:
        size = math.prod(layer.shape)
        seen += size
        if taken + size / 2 <= share * seen or share >= 1:
            chosen.add(layer.name)
            taken += size
    return chosen if total else set()


@contextmanager
def offloaded_weights(
    unet: nn.Module, layers: Sequence[Layer], device: torch.device, placement: Placement
) -> Iterator[OffloadedWeights]:
    """While entered, all of the UNet but its layers' weights is on the device, and those are read from what comes back.

    The modules keep their own weights, on the CPU; a layer must be computed with what `OffloadedWeights.read` gives.
    """
    own = {id(layer.module): layer for layer in layers}
    replaced: list[tuple[dict[str, Any], str, Tensor]] = []
    weights = OffloadedWeights(layers, device, placement)
    try:
        with torch.inference_mode(False):
            for part in unet.modules():
                for slots in (part._parameters, part._buffers):
                    for name, tensor in slots.items():
                        if isinstance(tensor, Tensor) and not (name == "weight" and id(part) in own):
                            replaced.append((slots, name, tensor))
                            slots[name] = _on_device(tensor, device)
        yield weights
    finally:
        weights.close()
        for slots, name, tensor in reversed(replaced):
            slots[name] = tensor


def _on_device(tensor: Tensor, device: torch.device) -> Tensor:
    moved = _copy(tensor.detach(), device)
    return nn.Parameter(moved, requires_grad=False) if isinstance(tensor, nn.Parameter) else moved


def _copied(weight: Weight, device: torch.device) -> Weight:
    return type(weight)(*(_copy(tensor, device) for tensor in weight.tensors))


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of its own on the device, an ordinary one even if this one was made for inference."""
    return torch.empty_like(tensor, device=device).copy_(tensor, non_blocking=True)


@dataclass
class _Fetcher:
    """Brings weights from the CPU, the next one while the last is being used.

    Which one is next it learns: training reads the layers in the same order again and again.
    """

    device: torch.device
    _kept: dict[str, Weight] = field(default_factory=dict)
    _after: dict[tuple[str, str], str] = field(default_factory=dict)
    _last: tuple[str, str] = ("", "")
    _coming: tuple[str, Weight, Any] | None = None
    _side: Any = None

    def __post_init__(self) -> None:
        if self.device.type == "cuda":
            self._side = torch.cuda.Stream(self.device)

    def keep(self, name: str, weight: Weight) -> None:
        cpu = [tensor.cpu() for tensor in weight.tensors]
        # Only pinned memory can be copied while the device computes.
        self._kept[name] = type(weight)(*(tensor.pin_memory() if self._side else tensor for tensor in cpu))

    def holds(self, name: str) -> bool:
        return name in self._kept

    def kept_tensors(self) -> list[Tensor]:
        return [tensor for weight in self._kept.values() for tensor in weight.tensors]

    def fetch(self, name: str) -> Weight:
        weight = self._arrived(name)
        before, last = self._last
        self._after[(before, last)] = name
        self._last = (last, name)
        following = self._after.get(self._last)
        if following == name:
            # Forward ends with it and backward begins with it.
            self._coming = (name, weight, None)
        elif following is not None:
            self._coming = (following, *self._start(following))
        return weight

    def close(self) -> None:
        self._kept.clear()
        self._coming = None

    def _arrived(self, name: str) -> Weight:
        coming, self._coming = self._coming, None
        if coming is None or coming[0] != name:
            # Guessed wrong, or not at all.
            coming = (name, *self._start(name))
        _, weight, done = coming
        if done is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(done)
            for tensor in weight.tensors:
                tensor.record_stream(stream)
        return weight

    def _start(self, name: str) -> tuple[Weight, Any]:
        """Begins to copy; the event tells when it is through, None if it is already."""
        if self._side is None:
            return _copied(self._kept[name], self.device), None
        with torch.cuda.stream(self._side):
            weight = _copied(self._kept[name], self.device)
            return weight, self._side.record_event()

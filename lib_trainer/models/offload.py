"""Frozen weights that take less of the device's memory: stored in 8 bits, or left on the CPU and fetched for each use.

The host's own weights stay untouched on the CPU; the device gets copies, dropped at the end. Only `Layer` weights
are offloaded, nearly all of a UNet; the rest is copied as it is.
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

INT8_LARGEST = 127


@dataclass(frozen=True)
class Int8Weight:
    """A weight as whole numbers −127 … 127, with one scale for each row of outputs.

    On normally distributed weights that is closer than float8, which has three bits between two powers of two.
    `tests/models/test_offload.py` measures both.

    Attributes:
        values: int8, in the weight's shape.
        scale: float32 (out, 1[, 1, 1]).
    """

    values: Tensor
    scale: Tensor

    @classmethod
    def of(cls, weight: Tensor) -> Int8Weight:
        full = weight.float()
        # A row that is all zeros would divide by zero.
        scale = full.abs().amax(dim=tuple(range(1, full.ndim)), keepdim=True).clamp(min=1e-12) / INT8_LARGEST
        return cls((full / scale).round().to(torch.int8), scale)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.values, self.scale

    def dense(self, like: Tensor) -> Tensor:
        # In place: the cast copy is ours, and a second one would double the peak.
        return self.values.to(like.dtype).mul_(self.scale.to(like.dtype))


@dataclass(frozen=True)
class PlainWeight:
    """A weight in the host's own dtype."""

    values: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.values,)

    def dense(self, like: Tensor) -> Tensor:
        return self.values.to(like.dtype)


class Weight(Protocol):
    """A frozen weight in some storage format."""

    @property
    def tensors(self) -> tuple[Tensor, ...]: ...

    def dense(self, like: Tensor) -> Tensor:
        """In the dtype of `like`."""


class OffloadedWeights:
    """The weights of a model's layers under a `Placement`, ready to be read.

    Args:
        layers: with their own weights, on whatever device the host left them.
        device: where they compute.
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
                # Copied even if it is on the device already, so that the host's own weight can leave it.
                self._resident[layer.name] = _copied(kept, device)

    def holds(self, layer: Layer) -> bool:
        return layer.name in self._resident or self._streamed.holds(layer.name)

    def read(self, layer: Layer, like: Tensor) -> tuple[Tensor, Tensor | None]:
        """The layer's weight and bias in the dtype of `like`, on the device."""
        weight = self._resident.get(layer.name) or self._streamed.fetch(layer.name)
        bias = layer.module.bias
        return weight.dense(like), None if bias is None else bias.detach().to(like)

    def read_int8(self, layer: Layer, like: Tensor) -> tuple[Int8Weight | None, Tensor | None]:
        """As `read`, with the weight as it is stored; no weight where that is not in 8 bits."""
        weight = self._resident.get(layer.name) or self._streamed.fetch(layer.name)
        bias = layer.module.bias
        held = weight if isinstance(weight, Int8Weight) else None
        return held, None if bias is None else bias.detach().to(like)

    def streamed_tensors(self) -> list[Tensor]:
        """The copies that stay on the CPU."""
        return self._streamed.kept_tensors()

    def close(self) -> None:
        self._resident.clear()
        self._streamed.close()


def spread_out(layers: Sequence[Layer], share: float) -> set[str]:
    """Names of layers that hold `share` of the weights, spread evenly: computing the layers between hides the fetch."""
    total = sum(math.prod(layer.shape) for layer in layers)
    chosen, seen, taken = set(), 0, 0
    for layer in layers:
        size = math.prod(layer.shape)
        seen += size
        # As error diffusion in a picture: a layer is taken whenever the share so far falls behind.
        if taken + size / 2 <= share * seen or share >= 1:
            chosen.add(layer.name)
            taken += size
    return chosen if total else set()


@contextmanager
def offloaded_weights(
    unet: nn.Module, layers: Sequence[Layer], device: torch.device, placement: Placement
) -> Iterator[OffloadedWeights]:
    """While entered, everything of the UNet but its layers' weights is on the device.

    The modules keep their own weights on the CPU; a layer must compute with what `OffloadedWeights.read` returns.
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
        # First, so that the device's memory is free when the host gets its model back.
        weights.close()
        for slots, name, tensor in reversed(replaced):
            slots[name] = tensor


def _on_device(tensor: Tensor, device: torch.device) -> Tensor:
    moved = _copy(tensor.detach(), device)
    return nn.Parameter(moved, requires_grad=False) if isinstance(tensor, nn.Parameter) else moved


def _copied(weight: Weight, device: torch.device) -> Weight:
    return type(weight)(*(_copy(tensor, device) for tensor in weight.tensors))


def _copy(tensor: Tensor, device: torch.device) -> Tensor:
    """A new tensor on the device; an ordinary one, even of an inference tensor."""
    return torch.empty_like(tensor, device=device).copy_(tensor, non_blocking=True)


@dataclass
class _Fetcher:
    """Prefetches weights from the CPU: copies the next while the last is in use.

    It learns the order of access from the first step: training reads the layers in the same order in every step. Two
    names before, not one, tell the next: forward and backward pass each layer in opposite directions.
    """

    device: torch.device
    _kept: dict[str, Weight] = field(default_factory=dict)
    _after: dict[tuple[str, str], str] = field(default_factory=dict)
    _last: tuple[str, str] = ("", "")
    _coming: tuple[str, Weight, Any] | None = None
    _side: Any = None

    def __post_init__(self) -> None:
        if self.device.type == "cuda":
            # Copies on a stream of their own overlap with the computation.
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
            # Forward ends with this layer and backward begins with it: it is there already.
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
            # Not prefetched: the first step, or another order than in the last one.
            coming = (name, *self._start(name))
        _, weight, done = coming
        if done is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(done)
            # Without this the allocator could reuse the memory as soon as the copying stream is done with it.
            for tensor in weight.tensors:
                tensor.record_stream(stream)
        return weight

    def _start(self, name: str) -> tuple[Weight, Any]:
        """Begins to copy; the event marks the end of the copy, None if it is done."""
        if self._side is None:
            return _copied(self._kept[name], self.device), None
        with torch.cuda.stream(self._side):
            weight = _copied(self._kept[name], self.device)
            return weight, self._side.record_event()

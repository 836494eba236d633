"""What a worker can be asked to run: one adapted layer, or a whole training step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.makers import MAKERS, make_lively, plain_layer
from lib_trainer.adapter.functional import Operation
from lib_trainer.config import AdapterConfig
from lib_trainer.memory.measure import StoragePeak


class Load(Protocol):
    def run(self) -> None:
        """Once."""

    def memory(self) -> dict[str, int]:
        """`peak_bytes` beyond what is there before, and `kept_bytes` between forward and backward."""


class LayerLoad:
    """Forward and backward of one layer; its input asks for a gradient, as all but a network's first do."""

    def __init__(self, maker: str, task: dict[str, Any]) -> None:
        torch.manual_seed(0)
        operation, config = operation_from(task["operation"]), AdapterConfig(**task["adapter"])
        layer = plain_layer(operation)
        self._forward, self._parameters = MAKERS[maker](layer, operation, config)
        make_lively(self._parameters)
        self._x = torch.randn(task["x_shape"], requires_grad=True)
        self._grad = torch.randn_like(self._forward(self._x))

    def run(self) -> None:
        for tensor in (self._x, *self._parameters):
            tensor.grad = None
        self._forward(self._x).backward(self._grad)

    def memory(self) -> dict[str, int]:
        for tensor in (self._x, *self._parameters):
            tensor.grad = None
        return measured_memory(lambda: self._forward(self._x), lambda y: y.backward(self._grad), [self._x])


def measured_memory(
    forward: Callable[[], Tensor], backward: Callable[[Tensor], None], known: list[Tensor]
) -> dict[str, int]:
    """Bytes of what `forward` and `backward` make; nothing counts that lives before, and `known` never does."""
    kept: dict[int, int] = {}
    before = {tensor.untyped_storage().data_ptr() for tensor in known}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in before:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    peak = StoragePeak()
    with peak:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y = forward()
        backward(y)
    return {"peak_bytes": peak.peak, "kept_bytes": sum(kept.values())}


def operation_from(values: dict[str, Any]) -> Operation:
    """From JSON, where tuples are lists."""
    return Operation(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


LOADS: dict[str, Callable[[str, dict[str, Any]], Load]] = {"layer": LayerLoad}

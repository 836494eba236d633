"""What a worker runs: one adapted layer, or complete training steps."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from benchmarks.cases import Compute, Implementation
from benchmarks.makers import MAKERS, make_lively, plain_layer
from benchmarks.memory import measured_memory
from lib_trainer.adapter.kernels.autograd import LayerOp
from lib_trainer.config.recipe import AdapterConfig


class Load(Protocol):
    def run(self) -> None:
        """Once."""

    def memory(self) -> dict[str, int]:
        """`peak_bytes` beyond what is there before, and `kept_bytes` between forward and backward."""


class LayerLoad:
    """Forward and backward of one layer; its input asks for a gradient, as all but a network's first do."""

    def __init__(self, implementation: Implementation, task: dict[str, Any]) -> None:
        torch.manual_seed(0)
        operation, config = operation_from(task["operation"]), AdapterConfig(**task["adapter"])
        self._implementation, self._compute = implementation, Compute(**task["compute"])
        device, dtype = self._compute.device, self._compute.torch_dtype
        layer = plain_layer(operation).to(device, dtype)
        self._layer, parameters = MAKERS[implementation.maker](layer, operation, config)
        make_lively(parameters)
        self._parameters = list(parameters.values())
        self._x = torch.randn(task["x_shape"]).to(device, dtype).requires_grad_()
        self._grad = torch.randn_like(self._forward())

    def run(self) -> None:
        for tensor in (self._x, *self._parameters):
            tensor.grad = None
        self._forward().backward(self._grad)

    def memory(self) -> dict[str, int]:
        for tensor in (self._x, *self._parameters):
            tensor.grad = None
        known = [self._x, self._grad, *self._parameters, *self._layer.parameters()]
        return measured_memory(self._forward, lambda y: y.backward(self._grad), known)

    def _forward(self) -> torch.Tensor:
        with self._implementation.forward_in(self._compute):
            return self._layer(self._x)


def operation_from(values: dict[str, Any]) -> LayerOp:
    """From JSON, where tuples are lists."""
    return LayerOp(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def build_load(implementation: Implementation, task: dict[str, Any]) -> Load:
    """What `task["load"]` names. Raises ValueError for another name."""
    if task["load"] == "layer":
        return LayerLoad(implementation, task)
    if task["load"] == "step":
        # Imports diffusers, which takes seconds and which layers do without.
        from benchmarks.steps import StepLoad

        return StepLoad(implementation, task)
    if task["load"] == "card":
        from benchmarks.card_load import CardLoad

        return CardLoad(implementation, task)
    raise ValueError(f"no load is called {task['load']!r}")

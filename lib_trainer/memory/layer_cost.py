"""Memory of one adapted layer, measured by running it on meta tensors."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor, nn

from lib_trainer.adapter.delta_weight import Tensors
from lib_trainer.adapter.fresh import new_module
from lib_trainer.adapter.kernels.autograd import Frozen, LayerOp, Strategy
from lib_trainer.adapter.kernels.choices import KernelChoices
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.memory.storage_peak import StoragePeak
from lib_trainer.models.offload import Int8Weight


@dataclass(frozen=True)
class LayerCost:
    """Bytes of one layer.

    Attributes:
        factors: shape of each trained parameter of its adapter; empty for a layer without one.
        backward: peak of its backward beside what forward kept, including the gradient of the input.
    """

    factors: tuple[tuple[int, ...], ...]
    backward: int

    @cached_property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.factors)


@dataclass(frozen=True)
class ModuleShape:
    """The adapter of one layer in a file, by the shapes of its tensors, under our names."""

    algo: str
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    magnitude: tuple[int, ...] | None = None

    @classmethod
    def of(cls, module: AdapterModule) -> ModuleShape:
        """Of factors that fit their layer."""
        scale = module.dora_scale
        shapes = tuple((name, tuple(tensor.shape)) for name, tensor in module.tensors.items())
        return cls(module.algo, shapes, None if scale is None else tuple(scale.shape))

    def module(self) -> AdapterModule:
        """Factors of these shapes, on meta."""
        tensors = {name: torch.empty(shape, device="meta") for name, shape in self.tensors}
        magnitude = None if self.magnitude is None else torch.empty(self.magnitude, device="meta")
        return AdapterModule(self.algo, tensors, 1.0, magnitude)


@lru_cache(maxsize=4096)
def layer_cost(
    operation: LayerOp,
    x_shape: tuple[int, ...],
    adapter: AdapterConfig | ModuleShape | None,
    dtype: torch.dtype,
    *,
    reads_copy: bool,
) -> LayerCost:
    """The cost of a layer for an input of `x_shape`, batch included.

    Args:
        adapter: the recipe for it, or its shapes in a file; None for a layer without one.
        dtype: the compute dtype.
        reads_copy: the weight is stored in another format than it is computed in, so each use makes a copy.
    """
    factors = _factors(operation, adapter) if adapter else None
    # On meta: shapes and dtypes decide, and no kernel runs.
    x = torch.empty(x_shape, dtype=dtype, device="meta")
    grad = operation(x, torch.empty(operation.shape, dtype=dtype, device="meta"))
    settings = (adapter.kernel_strategy, adapter.int8_matmul) if isinstance(adapter, AdapterConfig) else ()
    inputs, strategies = {}, [Frozen(operation)]
    if factors:
        inputs = factors.inputs
        strategies = factors.possible_strategies(operation, x, KernelChoices(*settings), int8=reads_copy)
    # Which one is the fastest is not known before the run.
    most = max(_backward_bytes(strategy, operation, inputs, x, grad, reads_copy=reads_copy) for strategy in strategies)
    return LayerCost(tuple(tuple(value.shape) for value in inputs.values()), most)


@torch.no_grad()
def _backward_bytes(
    strategy: Strategy, operation: LayerOp, inputs: Tensors, x: Tensor, grad: Tensor, *, reads_copy: bool
) -> int:
    """Peak of backward, which autograd calls without gradients of its own, beside what forward kept."""
    read = _FrozenWeight(operation, x.dtype, reads_copy=reads_copy)
    peak = StoragePeak()
    peak.ignore([read.weight, *read.held.tensors, x, grad, *inputs.values()])
    with peak:
        _, gradients = strategy.backward(read, x, inputs, grad, True)
    # Gradients of the adapter are counted by the estimate itself.
    own = sum(gradient.untyped_storage().nbytes() for gradient in gradients)
    return max(0, peak.peak - own)


class _FrozenWeight:
    """The weight of a layer on meta, as strategies read it."""

    def __init__(self, operation: LayerOp, dtype: torch.dtype, *, reads_copy: bool) -> None:
        self.weight = torch.empty(operation.shape, dtype=dtype, device="meta")
        values = torch.empty(operation.shape, dtype=torch.int8, device="meta")
        self.held = Int8Weight(values, torch.empty(operation.shape[0], 1, device="meta"))
        self._reads_copy = reads_copy

    def __call__(self, like: Tensor) -> tuple[Tensor, Tensor | None]:
        return (torch.empty_like(self.weight) if self._reads_copy else self.weight), None

    def int8(self, like: Tensor) -> tuple[Int8Weight, None]:
        return self.held, None


@lru_cache(maxsize=1024)
def _factors(operation: LayerOp, adapter: AdapterConfig | ModuleShape) -> AdapterModule | None:
    """The layer's adapter module, on meta."""
    if isinstance(adapter, ModuleShape):
        return adapter.module()
    # Initialisation must not move the random state of a run.
    with torch.random.fork_rng(devices=[]), _quiet(logging.getLogger("LyCORIS")):
        made = new_module("layer", operation, adapter, torch.empty(operation.shape, device="meta"))
    return None if made is None else _without_contents(made)


@contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """LyCORIS warns for every layer that a rank is too large for; once, when the run begins, suffices."""
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _without_contents(factors: AdapterModule) -> AdapterModule:
    for name, parameter in list(factors.named_parameters()):
        empty = torch.empty_like(parameter, device="meta")
        factors.register_parameter(name, nn.Parameter(empty))
    return factors

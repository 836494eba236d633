"""What a layer computes, and the autograd function that every kernel strategy runs in.

Shapes: `out`, `in` are a layer's sides, `k` its kernel, `r` the rank, `positions` the tokens or pixels of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from lib_trainer.adapter.delta_weight import Tensors

# Frozen weight and bias in the dtype and on the device of the tensor given.
ReadWeight = Callable[[Tensor], tuple[Tensor, Tensor | None]]
# Gradient of the input, None if not requested, and of each factor in order.
Gradients = tuple[Tensor | None, Sequence[Tensor | None]]


@dataclass(frozen=True)
class LayerOp:
    """What a layer does with its weight: a matrix product, or a 2-d convolution.

    Attributes:
        shape: of the weight, (out, in) or (out, in / groups, k, k).
        stride, padding, dilation, groups: of the convolution.
    """

    shape: tuple[int, ...]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @cached_property
    def is_conv(self) -> bool:
        return len(self.shape) == 4

    @cached_property
    def is_pointwise(self) -> bool:
        """A matrix product at every position: a linear layer, or a plain 1×1 convolution."""
        plain = (self.stride, self.padding, self.groups) == ((1, 1), (0, 0), 1)
        return not self.is_conv or (self.shape[2:] == (1, 1) and plain)

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x (…, in) -> (…, out), or (B, in, H, W) -> (B, out, H', W')."""
        return F.conv2d(x, weight, bias, *self._settings) if self.is_conv else F.linear(x, weight, bias)

    def grad_input(self, x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
        """Gradient of x, given that of the output."""
        if not self.is_conv:
            return grad @ weight
        if self.is_pointwise:
            # As a batched matrix product: the convolution's backward would copy x into another memory layout.
            matrix = weight.flatten(1).T.expand(len(x), -1, -1)
            return torch.bmm(matrix, grad.flatten(2)).reshape(x.shape)
        return self._backward(grad, _shaped(x, x.shape), weight, (True, False, False))[0]

    def grad_weight(self, x: Tensor, grad: Tensor) -> Tensor:
        """Gradient of the weight, in its shape."""
        if not self.is_conv:
            return grad.flatten(0, -2).T @ x.flatten(0, -2)
        if self.is_pointwise:
            return sum_of_products(grad.flatten(2), x.flatten(2).transpose(1, 2)).reshape(self.shape)
        return self._backward(grad, x, _shaped(x, self.shape), (False, True, False))[1]

    def gradients(self, x: Tensor, weight: Tensor | None, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        """Gradients of x and of the weight; of the weight alone where that is None."""
        if self.is_conv and not self.is_pointwise and weight is not None:
            # Both in one call, which on small layers takes as long as each.
            return self._backward(grad, x, weight, (True, True, False))[:2]
        return (None if weight is None else self.grad_input(x, weight, grad)), self.grad_weight(x, grad)

    def _backward(self, grad: Tensor, x: Tensor, weight: Tensor, which: tuple[bool, ...]) -> tuple[Tensor, ...]:
        """Gradients of x, weight and bias; the functions of `torch.nn.grad` take twice the time on small layers."""
        settings = self.stride, self.padding, self.dilation, False, (0, 0), self.groups
        return torch.ops.aten.convolution_backward(grad, x, weight, None, *settings, which)

    @property
    def _settings(self) -> tuple[Any, ...]:
        return self.stride, self.padding, self.dilation, self.groups


def _shaped(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A tensor whose shape alone is read."""
    return like.new_empty(1).expand(shape)


def runs_on_cpu(x: Tensor) -> bool:
    """Whether products of x run on a CPU."""
    return x.device.type == "cpu"


def sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """Σ a_n·b_n: (N, l, c), (N, c, m) -> (l, m)."""
    # A sum over one product would still copy it.
    return a[0] @ b[0] if len(a) == 1 else torch.bmm(a, b).sum(0)


class Strategy(Protocol):
    """Computes a layer's output and gradients. `read` reads W and the bias; x has the compute dtype."""

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        """x (…, in) -> (…, out), or (B, in, H, W) -> (B, out, H', W')."""

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        """Gradients of x, None unless `needs_x`, and of the factors in their order."""


def apply_strategy(strategy: Strategy, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
    """The layer's output; its graph keeps x and the factors alone."""
    return _LayerFunction.apply(strategy, read, tuple(factors), x, *factors.values())


class _LayerFunction(torch.autograd.Function):
    """Saves x and the factors, so that neither ΔW nor a cast copy of W lives until backward."""

    @staticmethod
    def forward(
        ctx: Any, strategy: Strategy, read: ReadWeight, names: tuple[str, ...], x: Tensor, *factors: Tensor
    ) -> Tensor:
        ctx.strategy, ctx.read, ctx.names = strategy, read, names
        ctx.save_for_backward(x, *factors)
        return strategy.forward(read, x, dict(zip(names, factors, strict=True)))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, *factors = ctx.saved_tensors
        # Names, not positions: strategies differ in which factors there are.
        named = dict(zip(ctx.names, factors, strict=True))
        # Attention hands back transposed gradients; the matrix products below want rows.
        grad_x, grads = ctx.strategy.backward(ctx.read, x, named, grad.contiguous(), ctx.needs_input_grad[3])
        return (None, None, None, grad_x, *grads)


@dataclass(frozen=True)
class Frozen:
    """The host's own layer. Backward reads its weight again, so no cast or dequantised copy is kept."""

    operation: LayerOp

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        return self.operation(x, *read(x))

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        return (self.operation.grad_input(x, read(x)[0], grad) if needs_x else None), ()


def apply_frozen(operation: LayerOp, read: ReadWeight, x: Tensor) -> Tensor:
    """The host's own layer, as `Frozen` computes it."""
    return apply_strategy(Frozen(operation), read, x, {})

"""Products of 8-bit activations with 8-bit weights (W8A8), where the frozen weights are held in 8 bits anyway.

Each token and each row of outputs has a scale of its own, and sums are exact: only the rounding of both sides is lost.
ΔW·x is computed apart from W·x, in the compute dtype.

Source: Dettmers et al., "LLM.int8()" (2022), without its outliers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from lib_trainer.adapter.delta_weight import Tensors
from lib_trainer.adapter.kernels.autograd import Gradients, LayerOp, ReadWeight, Strategy
from lib_trainer.adapter.kernels.strategies import LowRank
from lib_trainer.models.offload import INT8_LARGEST, Int8Weight

# What CUDA's product takes: more rows than this, and both sides of the weight in multiples.
_MOST_TOO_FEW_ROWS, _UNIT = 16, 8


class ReadInt8(Protocol):
    """A `ReadWeight` that can give the weight as it is held."""

    int8: Callable[[Tensor], tuple[Int8Weight | None, Tensor | None]] | None
    """Weight and bias for a tensor; no weight while the host's own is in use. None for a layer without."""

    def __call__(self, like: Tensor) -> tuple[Tensor, Tensor | None]: ...


def quantized(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (rows, c) as int8, and the scale of each row, (rows, 1) float32."""
    scale = x.abs().amax(1, keepdim=True).float().clamp_min(1e-12) / INT8_LARGEST
    return (x / scale).round().to(torch.int8), scale


def int8_product(x: Tensor, weight: Int8Weight) -> Tensor:
    """x (…, in) -> x·Wᵀ (…, out) in the dtype of x."""
    rows, scale = quantized(x.flatten(0, -2))
    y = (torch._int_mm(rows, weight.values.T) * scale).mul_(weight.scale.flatten())
    return y.to(x.dtype).unflatten(0, x.shape[:-1])


def int8_grad_input(grad: Tensor, weight: Int8Weight) -> Tensor:
    """grad (…, out) -> grad·W (…, in) in the dtype of grad."""
    # The scales of W's rows belong to what is summed over: they go into the gradient before it is rounded.
    rows, scale = quantized(grad.flatten(0, -2) * weight.scale.flatten())
    return (torch._int_mm(rows, weight.values) * scale).to(grad.dtype).unflatten(0, grad.shape[:-1])


def fits_int8(operation: LayerOp, x: Tensor) -> bool:
    """Whether a layer's products with an input like x can be computed in 8 bits where it lies."""
    if operation.is_conv or any(side % _UNIT for side in operation.shape):
        return False
    return x.numel() // operation.shape[1] > _MOST_TOO_FEW_ROWS and has_int8(x.device.type)


@lru_cache
def has_int8(device_type: str) -> bool:
    """Whether this PyTorch has such a product for the device: for CPUs it came after 2.3."""
    values = torch.zeros(32, 16, dtype=torch.int8, device=device_type)
    try:
        torch._int_mm(values, values[:16].T)
    except (RuntimeError, NotImplementedError, AttributeError):
        return False
    return True


def without_int8(setting: str, device: torch.device, *, held: bool) -> str:
    """Why 8-bit products have no effect in a run; "" where they have, or where nobody asked for them.

    Args:
        held: whether the frozen weights are held in 8 bits.
    """
    if setting == "off":
        return ""
    if not held:
        return "8-bit products: no effect, because the base weights are not held in 8 bits."
    where = "GPU" if device.type == "cuda" else "CPU"
    return "" if has_int8(device.type) else f"8-bit products: PyTorch {torch.__version__} has none for this {where}."


@dataclass(frozen=True)
class Int8Base:
    """W·x and its gradient by 8-bit products; ΔW·x by another strategy, which gets a W of zeros.

    Attributes:
        delta: computes ΔW·x.
    """

    operation: LayerOp
    delta: Strategy

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        weight, bias = read.int8(x)  # type: ignore[attr-defined]
        if weight is None:
            return self.delta.forward(read, x, factors)
        y = int8_product(x, weight)
        if bias is not None:
            y += bias
        if isinstance(self.delta, LowRank):
            self.delta.add_to(y, x, factors)
            return y
        return y.add_(self.delta.forward(self._nothing, x, factors))

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        weight, _ = read.int8(x) if needs_x else (None, None)  # type: ignore[attr-defined]
        if needs_x and weight is None:
            return self.delta.backward(read, x, factors, grad, needs_x)
        grad_x = int8_grad_input(grad, weight) if needs_x else None
        if isinstance(self.delta, LowRank):
            return grad_x, self.delta.factor_gradients(x, factors, grad, grad_x)
        through_delta, grads = self.delta.backward(self._nothing, x, factors, grad, needs_x)
        return (grad_x.add_(through_delta) if needs_x else None), grads

    def _nothing(self, like: Tensor) -> tuple[Tensor, None]:
        """Zeros of W's shape that take no memory."""
        return like.new_zeros(1).expand(self.operation.shape), None

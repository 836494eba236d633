"""The kernel strategy of DoRA, whose weight is not linear in the factors: W + ΔW is built and normalised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_trainer.adapter.delta_weight import Tensors
from lib_trainer.adapter.dora import DORA, magnitudes, safe
from lib_trainer.adapter.kernels.autograd import Gradients, LayerOp, ReadWeight
from lib_trainer.adapter.kernels.half import round_stochastically


@dataclass(frozen=True)
class Decomposed:
    """One product with W + strength·(W' − W), where W' = m·V/‖V‖ and V = W + ΔW.

    Everything up to the product is computed in the dtype of the factors: m/‖V‖ is so close to 1 that half precision
    would lose it.

    Attributes:
        delta: factors -> ΔW at strength 1 with as many elements as W, differentiable. The factors hold m as well.
    """

    operation: LayerOp
    delta: Callable[[Tensors], Tensor]
    strength: float

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        weight, bias = read(x)
        direction = self._direction(weight, self.delta(factors), factors)
        ratio = factors[DORA] / safe(magnitudes(direction, tuple(factors[DORA].shape)))
        return self.operation(x, self._total(weight, direction, ratio), bias)

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        with torch.enable_grad():
            leaves = {name: factor.detach().requires_grad_() for name, factor in factors.items() if name != DORA}
            delta = self.delta(leaves)
        weight, magnitude = read(x)[0], factors[DORA]
        direction = self._direction(weight, delta.detach(), factors)
        norm = magnitudes(direction, tuple(magnitude.shape))
        ratio = magnitude / safe(norm)
        # Copied, for `_total` overwrites it.
        grad_x = self.operation.grad_input(x, self._total(weight, direction.clone(), ratio), grad) if needs_x else None
        del weight
        # Of the total, then of V: directly, and through ‖V‖.
        grad_total = self.operation.grad_weight(x, grad).to(direction.dtype).mul_(self.strength)
        axes = tuple(axis for axis, size in enumerate(magnitude.shape) if size == 1)
        grad_ratio = (grad_total * direction).sum(axes, keepdim=True)
        through_norm = -grad_ratio * ratio / safe(norm) / norm.clamp(min=torch.finfo(norm.dtype).tiny)
        grad_direction = grad_total.mul_(ratio).addcmul_(direction, through_norm)
        del direction
        grads = torch.autograd.grad(delta, list(leaves.values()), grad_direction.reshape(delta.shape))
        by_name = dict(zip(leaves, grads, strict=True)) | {DORA: grad_ratio / safe(norm)}
        return grad_x, [by_name[name] for name in factors]

    def _direction(self, weight: Tensor, delta: Tensor, factors: Tensors) -> Tensor:
        """V, in the dtype of the factors."""
        return weight.to(factors[DORA].dtype) + delta.reshape(self.operation.shape)

    def _total(self, weight: Tensor, direction: Tensor, ratio: Tensor) -> Tensor:
        """W + strength·(W' − W) in the dtype of W; overwrites the direction."""
        total = direction.mul_(ratio if self.strength == 1 else ratio * self.strength)
        if self.strength != 1:
            total.add_(weight.to(total.dtype), alpha=1 - self.strength)
        if total.dtype == weight.dtype:
            return total
        return round_stochastically(total.flatten(1), weight.dtype).reshape(self.operation.shape)

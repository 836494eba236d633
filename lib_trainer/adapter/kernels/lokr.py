"""LoKr's own strategy, for ΔW = scale·(W1 ⊗ W2) without a Tucker core."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_trainer.adapter.delta_weight import (
    Tensors,
    lokr_first,
    lokr_first_gradients,
    lokr_second,
    lokr_second_gradients,
)
from lib_trainer.adapter.kernels.autograd import Gradients, LayerOp, ReadWeight
from lib_trainer.adapter.kernels.half import AddRows, half_factors, in_half, nearest_in_half


@dataclass(frozen=True)
class KroneckerDense:
    """`Dense` with gradients written out: ΔW is added to W while it is made.

    Attributes:
        scale: ΔW is multiplied by it.
    """

    operation: LayerOp
    scale: float

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        weight, bias = read(x)
        return self.operation(x, self._total(weight, lokr_first(factors), lokr_second(factors)), bias)

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        first, second = lokr_first(factors), lokr_second(factors)
        total = self._total(read(x)[0], first, second) if needs_x else None
        grad_x, grad_delta = self.operation.gradients(x, total, grad)
        found = self.factor_gradients(factors, first, second, grad_delta)
        return grad_x, [found[name] for name in factors]

    def add_rows(self, weight: Tensor, factors: Tensors, rows: slice) -> Tensor:
        """These rows of W + ΔW, (…, in·k²); as many as W2 has, or a multiple."""
        first, second = lokr_first(factors), lokr_second(factors)
        return self._total(weight, first[rows.start // len(second) : rows.stop // len(second)], second)

    def _total(self, weight: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """W + ΔW for as many rows of W as `first` has parts, in their shape."""
        (rows, columns), out = first.shape, len(second)
        parts = weight.reshape(rows, out, columns, -1)
        # By broadcasting: torch.kron would write ΔW and read it again.
        first, second = first.reshape(rows, 1, columns, 1), second.reshape(out, 1, -1)
        return torch.addcmul(parts, first, second, value=self.scale).reshape(weight.shape)

    def factor_gradients(self, factors: Tensors, first: Tensor, second: Tensor, grad: Tensor) -> dict[str, Tensor]:
        """The factors' gradients by name, from that of W + ΔW."""
        (rows, columns), out = first.shape, len(second)
        # One row for each element of W1, with the block of ΔW that it multiplies W2 into.
        blocks = grad.reshape(rows, out, columns, -1).transpose(1, 2).reshape(rows * columns, -1)
        if self.scale != 1:
            # Before the sums, which could leave the range of float16.
            first, second = first * self.scale, second * self.scale
        grad_first, grad_second = torch.mv(blocks, second.flatten()), torch.mv(blocks.T, first.flatten())
        return {
            **lokr_first_gradients(factors, grad_first.view(first.shape)),
            **lokr_second_gradients(factors, grad_second.view(second.shape)),
        }


@dataclass(frozen=True)
class HalfKroneckerDense:
    """`KroneckerDense` where x and W are in half precision: W and ΔW are added in float32."""

    in_float: KroneckerDense

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        weight, bias = read(x)
        return self.in_float.operation(x, self._total(in_half, weight, factors), bias)

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        total = self._total(nearest_in_half, read(x)[0], factors) if needs_x else None
        grad_x, grad_delta = self.in_float.operation.gradients(x, total, grad)
        half = half_factors(factors, x.dtype)
        first, second = lokr_first(half.tensors), lokr_second(half.tensors)
        found = self.in_float.factor_gradients(half.tensors, first, second, grad_delta)
        return grad_x, [half.gradient(name, found[name]) for name in factors]

    def _total(self, rounded: Callable[[AddRows], AddRows], weight: Tensor, factors: Tensors) -> Tensor:
        """W + ΔW in W's shape and dtype."""
        add_rows = rounded(self.in_float.add_rows)
        return add_rows(weight.flatten(1), factors, slice(0, len(weight))).reshape(weight.shape)

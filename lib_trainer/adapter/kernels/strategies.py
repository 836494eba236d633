"""Kernel strategies: how one layer computes with W + ΔW. All give the same output and gradients.

Which one is fastest depends on the layer's shape (`dispatch`). They recompute in backward: they keep only the input and
the factors, and a tensor of ΔW's size lives only as long as its product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_trainer.adapter.delta_weight import Tensors
from lib_trainer.adapter.kernels.autograd import Gradients, LayerOp, ReadWeight
from lib_trainer.adapter.kernels.factored import FactoredDelta
from lib_trainer.adapter.kernels.half import AddRows, HalfFactors, half_factors, round_stochastically
from lib_trainer.adapter.kernels.tiling import add_grad_input, row_tiles, tiled_product

# Factors, ΔW's gradient in its shape -> the factors' gradients, by name.
DeltaGradients = Callable[[Tensors, Tensor], dict[str, Tensor]]


@dataclass(frozen=True)
class Dense:
    """One product with W + ΔW, where ΔW is any function of the factors.

    Attributes:
        delta: factors -> ΔW with as many elements as W, differentiable.
        gradients: factors, ΔW's gradient -> theirs, by name; None leaves them to autograd.
    """

    operation: LayerOp
    delta: Callable[[Tensors], Tensor]
    gradients: DeltaGradients | None = None

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        weight, bias = read(x)
        return self.operation(x, weight + self.delta(factors).reshape(self.operation.shape), bias)

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        delta = _Delta.of(self.delta, factors, self.gradients)
        grad_x = None
        if needs_x:
            total = read(x)[0] + delta.value.detach().reshape(self.operation.shape)
            grad_x = self.operation.grad_input(x, total, grad)
            # Two tensors of W's size at once would set the step's peak.
            del total
        # One gradient of ΔW's size, from which those of the factors follow.
        return grad_x, delta.gradients(self.operation.grad_weight(x, grad))


@dataclass(frozen=True)
class HalfDense:
    """`Dense` where x and W are in half precision: ΔW too is built in it, and added to W in float32.

    Attributes:
        delta: as for `Dense`, and linear in each factor.
        gradients: as for `Dense`.
    """

    operation: LayerOp
    delta: Callable[[Tensors], Tensor]
    gradients: DeltaGradients | None = None

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        weight, bias = read(x)
        half = half_factors(factors, x.dtype)
        return self.operation(x, self._total(weight, half, self.delta(half.tensors)), bias)

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        half = half_factors(factors, x.dtype)
        delta = _Delta.of(self.delta, half.tensors, self.gradients)
        grad_x = None
        if needs_x:
            grad_x = self.operation.grad_input(x, self._total(read(x)[0], half, delta.value.detach()), grad)
        grads = delta.gradients(self.operation.grad_weight(x, grad))
        return grad_x, [half.gradient(name, value) for name, value in zip(factors, grads, strict=True)]

    def _total(self, weight: Tensor, half: HalfFactors, delta: Tensor) -> Tensor:
        """W + ΔW in the dtype of W."""
        # .float() copies: a half-precision weight is the host's own.
        total = weight.flatten(1).float()
        half.add_to(total, delta.reshape(total.shape), 1.0)
        return round_stochastically(total, weight.dtype).reshape(self.operation.shape)


@dataclass(frozen=True)
class DenseForward:
    """One product with W + ΔW; the factors' gradients without ΔW's, through the factored form.

    Attributes:
        add_rows: builds rows of W + ΔW, in the dtype of W.
        rows_for_grad: the same for the gradient of x.
        unit: rows come in multiples of it.
    """

    factored: FactoredDelta
    add_rows: AddRows
    rows_for_grad: AddRows
    unit: int = 1

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        add = lambda weight, rows: self.add_rows(weight, factors, rows)  # noqa: E731
        return tiled_product(self.factored.operation, read, x, add, self.unit)

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        operation, grad_x = self.factored.operation, None
        if needs_x:
            weight = read(x)[0].flatten(1)
            for rows in row_tiles(operation, x, self.unit):
                total = self.rows_for_grad(weight[rows], factors, rows)
                grad_x = add_grad_input(operation, grad_x, x, total, grad, rows)
        return grad_x, _factor_gradients(self.factored, x, factors, grad, None)


@dataclass(frozen=True)
class LowRank:
    """W·x, plus ΔW·x in factored form: builds nothing of ΔW's size, in any precision."""

    factored: FactoredDelta

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        y = self.factored.operation(x, *read(x)).contiguous()
        self.add_to(y, x, factors)
        return y

    def add_to(self, y: Tensor, x: Tensor, factors: Tensors) -> None:
        """y += ΔW·x, for contiguous y."""
        self.factored.add_to(y, x, [weight.to(x.dtype) for weight in self.factored.weights(factors)])

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        grad_x = None
        if needs_x:
            grad_x = self.factored.operation.grad_input(x, read(x)[0], grad).contiguous()
        return grad_x, self.factor_gradients(x, factors, grad, grad_x)

    def factor_gradients(self, x: Tensor, factors: Tensors, grad: Tensor, grad_x: Tensor | None) -> Sequence[Tensor]:
        """The factors' gradients; adds ΔW's part to the gradient of x, contiguous, if given."""
        return _factor_gradients(self.factored, x, factors, grad, grad_x)


def _factor_gradients(
    factored: FactoredDelta, x: Tensor, factors: Tensors, grad: Tensor, grad_x: Tensor | None
) -> Sequence[Tensor]:
    """The factors' gradients through the weights of the contractions; adds to `grad_x` if given."""
    weights = [weight.to(x.dtype) for weight in factored.weights(factors)]
    return factored.factor_gradients(factors, factored.backward(x, grad, weights, grad_x))


@dataclass(frozen=True)
class _Delta:
    """ΔW in backward, and the way back to the factors."""

    value: Tensor
    factors: Tensors
    by_hand: DeltaGradients | None

    @classmethod
    def of(cls, make: Callable[[Tensors], Tensor], factors: Tensors, by_hand: DeltaGradients | None) -> _Delta:
        if by_hand is not None:
            return cls(make(factors), factors, by_hand)
        with torch.enable_grad():
            leaves = {name: factor.detach().requires_grad_() for name, factor in factors.items()}
            return cls(make(leaves), leaves, None)

    def gradients(self, grad: Tensor) -> Sequence[Tensor]:
        """Of the factors in their order, given ΔW's in any shape."""
        grad = grad.reshape(self.value.shape)
        if self.by_hand is None:
            return torch.autograd.grad(self.value, list(self.factors.values()), grad)
        found = self.by_hand(self.factors, grad)
        return [found[name] for name in self.factors]

"""Ways for one layer to compute with W + ΔW. All give the same output and gradients; which is fastest depends on the
layer's shape.

None keeps anything for backward but the input and the factors, and what is of ΔW's size lives no longer than its
product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_trainer.adapter.delta_weight import Tensors
from lib_trainer.adapter.kernels.autograd import Gradients, LayerOp, ReadWeight
from lib_trainer.adapter.kernels.factored import Chain
from lib_trainer.adapter.kernels.tiling import add_grad_input, blocks_of, product

# Rows of W (…, in·k²), the factors, which rows -> those rows of W + ΔW.
AddRows = Callable[[Tensor, Tensors, slice], Tensor]


@dataclass(frozen=True)
class Whole:
    """One product with W + ΔW, where ΔW is any function of the factors.

    Attributes:
        delta: factors -> ΔW with as many elements as W, differentiable.
        apart: ΔW·x is a product of its own, because W + ΔW in half precision would round a young ΔW away. Only the
            gradient of x goes through W + ΔW then: there it does no more harm than W's own rounding.
    """

    operation: LayerOp
    delta: Callable[[Tensors], Tensor]
    apart: bool = False

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        weight, bias = read(x)
        change = self.delta(factors).reshape(self.operation.shape)
        if self.apart:
            return self.operation(x, weight, bias).add_(self.operation(x, change.to(x.dtype)))
        return self.operation(x, weight + change, bias)

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        with torch.enable_grad():
            leaves = _leaves(factors)
            change = self.delta(leaves)
        grad_x = None
        if needs_x:
            total = read(x)[0] + change.detach().reshape(self.operation.shape)
            grad_x = self.operation.grad_input(x, total.to(x.dtype), grad)
            del total
        grad_change = self.operation.grad_weight(x, grad).to(change.dtype).reshape(change.shape)
        return grad_x, torch.autograd.grad(change, list(leaves.values()), grad_change)


@dataclass(frozen=True)
class Factored:
    """One product with W + ΔW in full precision; the factors' gradients come from the chain, without ΔW's.

    Attributes:
        add_rows: builds rows of W + ΔW.
        unit: rows come in multiples of it.
    """

    chain: Chain
    add_rows: AddRows
    unit: int = 1

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        add = lambda weight, rows: self.add_rows(weight, factors, rows)  # noqa: E731
        return product(self.chain.operation, read, x, add, self.unit)

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        operation, grad_x = self.chain.operation, None
        if needs_x:
            weight = read(x)[0].flatten(1)
            for rows in blocks_of(operation, x, self.unit):
                total = self.add_rows(weight[rows], factors, rows)
                grad_x = add_grad_input(operation, grad_x, x, total, grad, rows)
        return grad_x, _chain_gradients(self.chain, x, factors, grad, None)


@dataclass(frozen=True)
class Chained:
    """W·x, and ΔW·x through the chain: nothing of ΔW's size is ever built, in any precision."""

    chain: Chain

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        y = self.chain.operation(x, *read(x)).contiguous()
        self.chain.add_to(y, x, [weight.to(x.dtype) for weight in self.chain.weights(factors)])
        return y

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        grad_x = None
        if needs_x:
            grad_x = self.chain.operation.grad_input(x, read(x)[0], grad).contiguous()
        return grad_x, _chain_gradients(self.chain, x, factors, grad, grad_x)


def _chain_gradients(
    chain: Chain, x: Tensor, factors: Tensors, grad: Tensor, grad_x: Tensor | None
) -> Sequence[Tensor]:
    """The factors' gradients through the weights of the chain's steps; adds to `grad_x` where it is given."""
    with torch.enable_grad():
        leaves = _leaves(factors)
        weights = [weight.to(x.dtype) for weight in chain.weights(leaves)]
    grads = chain.backward(x, grad, [weight.detach() for weight in weights], grad_x)
    return torch.autograd.grad(weights, list(leaves.values()), grads)


def _leaves(factors: Tensors) -> dict[str, Tensor]:
    return {name: factor.detach().requires_grad_() for name, factor in factors.items()}

"""Ways for one layer to compute with W + ΔW. All give the same output and gradients; which is fastest depends on the
layer's shape.

None keeps anything for backward but the input and the factors, and what is of ΔW's size lives no longer than its
product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib_trainer.adapter.chains import Chain
from lib_trainer.adapter.functional import Gradients, Operation, ReadWeight, Tensors

# Rows of W (…, in·k²), the factors, which rows -> those rows of W + ΔW.
AddRows = Callable[[Tensor, Tensors, slice], Tensor]
# Of a linear layer's W + ΔW as many rows are built at a time as the input has places, within these numbers of numbers:
# fewer stay in a processor's cache, but each block of rows reads the input and adds to its gradient anew.
_LEAST_AT_ONCE, _MOST_AT_ONCE = 2**18, 2**22


@dataclass(frozen=True)
class Whole:
    """One product with W + ΔW, where ΔW is any function of the factors.

    Attributes:
        delta: factors -> ΔW with as many elements as W, differentiable.
        apart: ΔW·x is a product of its own, because W + ΔW in half precision would round a young ΔW away. Only the
            gradient of x goes through W + ΔW then: there it does no more harm than W's own rounding.
    """

    operation: Operation
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
class Hadamard:
    """LoHa without cores in full precision: one product with W + scale·(w1_a·w1_b) ∘ (w2_a·w2_b), built in place."""

    operation: Operation
    scale: float

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        return _product(self.operation, read, x, lambda weight, rows: self.rows(weight, factors, rows))

    def rows(self, weight: Tensor, factors: Tensors, rows: slice) -> Tensor:
        first, second = self._pair(factors, rows)
        return torch.addcmul(weight, first, second, value=self.scale)

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        weight = read(x)[0].flatten(1)
        grads = {name: torch.zeros_like(factor) for name, factor in factors.items()}
        grad_x = None
        for rows in _blocks(self.operation, x):
            first, second = self._pair(factors, rows)
            if needs_x:
                total = torch.addcmul(weight[rows], first, second, value=self.scale)
                grad_x = _add_grad_input(self.operation, grad_x, x, total, grad, rows)
                del total
            grad_rows = _grad_rows(self.operation, x, grad, rows)
            # What each half's gradient needs of the other is used up in place.
            for half, change in (("w1", second.mul_(grad_rows)), ("w2", first.mul_(grad_rows))):
                torch.mm(change, factors[f"{half}_b"].T, out=grads[f"{half}_a"][rows])
                grads[f"{half}_b"].addmm_(factors[f"{half}_a"][rows].T, change)
        return grad_x, [value.mul_(self.scale) for value in grads.values()]

    @staticmethod
    def _pair(f: Tensors, rows: slice) -> tuple[Tensor, Tensor]:
        return f["w1_a"][rows] @ f["w1_b"], f["w2_a"][rows] @ f["w2_b"]


@dataclass(frozen=True)
class Few:
    """LoHa of a linear layer at a few places: ΔW·x = (w1_a·M ∘ w2_a)·1 with M = w1_b·diag(x)·w2_bᵀ of each place.

    Nothing of ΔW's size is built; M is (r, r).
    """

    operation: Operation
    scale: float

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        y = self.operation(x, *read(x))
        middle = self._middle(_places(x, factors), factors)
        change = (factors["w1_a"] @ middle).mul_(factors["w2_a"]).sum(2).mul_(self.scale)
        return y.add_(change.to(y.dtype).reshape(y.shape))

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        places, grads = _places(x, factors), _places(grad, factors)[:, :, None] * self.scale
        middle = self._middle(places, factors)
        outer = grads * factors["w2_a"]
        grad_middle = factors["w1_a"].T @ outer
        inner = grad_middle @ factors["w2_b"]
        found = {
            "w1_a": (outer @ middle.transpose(1, 2)).sum(0),
            "w2_a": ((grads * factors["w1_a"]) @ middle).sum(0),
            "w1_b": (inner * places[:, None]).sum(0),
            "w2_b": ((grad_middle.transpose(1, 2) @ factors["w1_b"]) * places[:, None]).sum(0),
        }
        grad_x = None
        if needs_x:
            change = (inner * factors["w1_b"]).sum(1)
            grad_x = self.operation.grad_input(x, read(x)[0], grad).add_(change.to(x.dtype).reshape(x.shape))
        return grad_x, [found[name] for name in factors]

    @staticmethod
    def _middle(places: Tensor, f: Tensors) -> Tensor:
        """(P, in) -> (P, r, r)."""
        return (f["w1_b"] * places[:, None]) @ f["w2_b"].T


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
        return _product(self.chain.operation, read, x, add, self.unit)

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        operation, grad_x = self.chain.operation, None
        if needs_x:
            weight = read(x)[0].flatten(1)
            for rows in _blocks(operation, x, self.unit):
                total = self.add_rows(weight[rows], factors, rows)
                grad_x = _add_grad_input(operation, grad_x, x, total, grad, rows)
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


def _places(x: Tensor, factors: Tensors) -> Tensor:
    """(…, c) -> (places, c) in the factors' dtype."""
    return x.flatten(0, -2).to(next(iter(factors.values())).dtype)


def _leaves(factors: Tensors) -> dict[str, Tensor]:
    return {name: factor.detach().requires_grad_() for name, factor in factors.items()}


def _blocks(operation: Operation, x: Tensor, unit: int = 1) -> Iterator[slice]:
    """Rows of a linear layer's weight, some at a time and whole units of them; all rows of a convolution."""
    rows, columns = operation.shape[0], operation.shape[1]
    places = x.numel() // columns
    wanted = min(max(places, _LEAST_AT_ONCE // columns), _MOST_AT_ONCE // columns)
    size = rows if operation.is_conv else max(unit, wanted // unit * unit)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def _product(
    operation: Operation, read: ReadWeight, x: Tensor, add: Callable[[Tensor, slice], Tensor], unit: int = 1
) -> Tensor:
    """operation(x, W + ΔW), with W + ΔW from `add` some rows at a time."""
    weight, bias = read(x)
    matrix, blocks = weight.flatten(1), list(_blocks(operation, x, unit))
    if len(blocks) == 1:
        return operation(x, add(matrix, blocks[0]).reshape(operation.shape), bias)
    places = x.flatten(0, -2)
    y = x.new_empty(len(places), len(weight))
    for rows in blocks:
        total = add(matrix[rows], rows).T
        if bias is None:
            torch.mm(places, total, out=y[:, rows])
        else:
            torch.addmm(bias[rows], places, total, out=y[:, rows])
    return y.unflatten(0, x.shape[:-1])


def _add_grad_input(
    operation: Operation, so_far: Tensor | None, x: Tensor, total: Tensor, grad: Tensor, rows: slice
) -> Tensor:
    """The gradient of x through these rows of W + ΔW, added to what other rows gave."""
    if operation.is_conv:
        return operation.grad_input(x, total.reshape(operation.shape), grad)
    if so_far is None:
        return grad[..., rows] @ total
    so_far.flatten(0, -2).addmm_(grad[..., rows].flatten(0, -2), total)
    return so_far


def _grad_rows(operation: Operation, x: Tensor, grad: Tensor, rows: slice) -> Tensor:
    """Rows (…, in·k²) of the gradient of W + ΔW."""
    return operation.grad_weight(x, grad if operation.is_conv else grad[..., rows]).flatten(1)

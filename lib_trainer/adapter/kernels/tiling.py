"""Products with W + ΔW of one layer, of which some rows are built at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lib_trainer.adapter.kernels.autograd import LayerOp, ReadWeight, is_on_processor

# Of a linear layer's W + ΔW as many rows are built at a time as the input has places, within these numbers of numbers:
# fewer stay in a processor's cache, but each block of rows reads the input and adds to its gradient anew.
_LEAST_AT_ONCE, _MOST_AT_ONCE = 2**18, 2**22


def blocks_of(operation: LayerOp, x: Tensor, unit: int = 1) -> Iterator[slice]:
    """Rows of a linear layer's weight, some at a time and whole units of them; all rows of a convolution."""
    rows, columns = operation.shape[0], operation.shape[1]
    wanted = _MOST_AT_ONCE // columns
    # On a graphics card each block costs the start of its kernels.
    if is_on_processor(x):
        wanted = min(wanted, max(x.numel() // columns, _LEAST_AT_ONCE // columns))
    size = rows if operation.is_conv else max(unit, wanted // unit * unit)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def product(
    operation: LayerOp, read: ReadWeight, x: Tensor, add: Callable[[Tensor, slice], Tensor], unit: int = 1
) -> Tensor:
    """operation(x, W + ΔW), with W + ΔW from `add` some rows at a time."""
    weight, bias = read(x)
    matrix, blocks = weight.flatten(1), list(blocks_of(operation, x, unit))
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


def add_grad_input(
    operation: LayerOp, so_far: Tensor | None, x: Tensor, total: Tensor, grad: Tensor, rows: slice
) -> Tensor:
    """The gradient of x through these rows of W + ΔW, added to what other rows gave."""
    if operation.is_conv:
        return operation.grad_input(x, total.reshape(operation.shape), grad)
    if so_far is None:
        return grad[..., rows] @ total
    so_far.flatten(0, -2).addmm_(grad[..., rows].flatten(0, -2), total)
    return so_far


def add_change(operation: LayerOp, y: Tensor, x: Tensor, change: Tensor, rows: slice) -> None:
    """y += ΔW·x where ΔW has these rows, which are `change` (…, in·k²)."""
    if operation.is_conv:
        y.add_(operation(x, change.reshape(operation.shape)))
    else:
        y.flatten(0, -2)[:, rows].addmm_(x.flatten(0, -2), change.T)


def grad_rows(operation: LayerOp, x: Tensor, grad: Tensor, rows: slice, out: Tensor | None = None) -> Tensor:
    """Rows (…, in·k²) of the gradient of W + ΔW; a linear layer's are written into `out` where it is given."""
    if operation.is_conv:
        return operation.grad_weight(x, grad).flatten(1)
    return torch.mm(grad[..., rows].flatten(0, -2).T, x.flatten(0, -2), out=out)

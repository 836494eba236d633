"""Products with W + ΔW of one layer, built some rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lib_trainer.adapter.kernels.autograd import LayerOp, ReadWeight, runs_on_cpu

# Elements of W + ΔW in one tile. A small tile stays in the CPU's cache, but every tile reads the input again and adds
# to its gradient; so a tile is about as large as the input, between these bounds.
_MIN_TILE, _MAX_TILE = 2**18, 2**22
# In half precision a CPU's library takes more time for each call than the cache saves.
_MIN_HALF_TILE = 2**21


def row_tiles(operation: LayerOp, x: Tensor, unit: int = 1) -> Iterator[slice]:
    """Rows of a linear layer's weight in tiles of a multiple of `unit`; all rows of a convolution at once."""
    rows, columns = operation.shape[0], operation.shape[1]
    wanted = _MAX_TILE // columns
    # On a GPU each tile costs kernel launches, and no cache holds one anyway.
    if runs_on_cpu(x):
        least = _MIN_HALF_TILE if x.dtype.itemsize == 2 else _MIN_TILE
        wanted = min(wanted, max(x.numel(), least) // columns)
    size = rows if operation.is_conv else max(unit, wanted // unit * unit)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def tiled_product(
    operation: LayerOp, read: ReadWeight, x: Tensor, add: Callable[[Tensor, slice], Tensor], unit: int = 1
) -> Tensor:
    """operation(x, W + ΔW), where `add` makes rows of W + ΔW from rows of W."""
    weight, bias = read(x)
    matrix, tiles = weight.flatten(1), list(row_tiles(operation, x, unit))
    # One product writes its own output; several write into one.
    if len(tiles) == 1:
        return operation(x, add(matrix, tiles[0]).reshape(operation.shape), bias)
    xs = x.flatten(0, -2)
    y = x.new_empty(len(xs), len(weight))
    for rows in tiles:
        total = add(matrix[rows], rows).T
        if bias is None:
            torch.mm(xs, total, out=y[:, rows])
        else:
            torch.addmm(bias[rows], xs, total, out=y[:, rows])
    return y.unflatten(0, x.shape[:-1])


def add_grad_input(
    operation: LayerOp, so_far: Tensor | None, x: Tensor, total: Tensor, grad: Tensor, rows: slice
) -> Tensor:
    """The gradient of x through these rows of W + ΔW (`total`), added to that of the tiles before."""
    if operation.is_conv:
        return operation.grad_input(x, total.reshape(operation.shape), grad)
    if so_far is None:
        return grad[..., rows] @ total
    so_far.flatten(0, -2).addmm_(grad[..., rows].flatten(0, -2), total)
    return so_far


def grad_weight_rows(operation: LayerOp, x: Tensor, grad: Tensor, rows: slice, out: Tensor | None = None) -> Tensor:
    """Rows (…, in·k²) of the gradient of W + ΔW; a linear layer's are written into `out` if given."""
    if operation.is_conv:
        return operation.grad_weight(x, grad).flatten(1)
    return torch.mm(grad[..., rows].flatten(0, -2).T, x.flatten(0, -2), out=out)

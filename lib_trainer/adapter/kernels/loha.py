"""Strategies of LoHa's own, for ΔW = scale·(w1_a·w1_b) ∘ (w2_a·w2_b) without Tucker cores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib_trainer.adapter.delta_weight import Tensors
from lib_trainer.adapter.kernels.autograd import Gradients, LayerOp, ReadWeight
from lib_trainer.adapter.kernels.half import HalfFactors, half_factors, round_stochastically
from lib_trainer.adapter.kernels.tiling import add_grad_input, grad_weight_rows, row_tiles, tiled_product


@dataclass(frozen=True)
class HadamardDense:
    """`Dense` with gradients written out: ΔW is built some rows at a time, in buffers that all tiles share.

    Autograd would keep both halves, their product and three gradients of W's size.

    Attributes:
        scale: ΔW is multiplied by it.
    """

    operation: LayerOp
    scale: float

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        return tiled_product(self.operation, read, x, lambda weight, rows: self.add_rows(weight, factors, rows))

    def add_rows(self, weight: Tensor, factors: Tensors, rows: slice) -> Tensor:
        """These rows of W + ΔW, (…, in·k²)."""
        first, second = _halves(factors, rows, None, None)
        return torch.addcmul(weight, first, second, value=self.scale, out=first)

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        weight = read(x)[0].flatten(1) if needs_x else None
        grads = {name: torch.empty_like(factor) for name, factor in factors.items()}
        first = second = total = grad_delta = grad_x = None
        for rows in row_tiles(self.operation, x):
            first, second = _halves(factors, rows, first, second)
            if weight is not None:
                total = torch.empty_like(weight[rows]) if total is None else _cut(total, rows)
                torch.addcmul(weight[rows], first, second, value=self.scale, out=total)
                grad_x = add_grad_input(self.operation, grad_x, x, total, grad, rows)
            grad_delta = grad_weight_rows(self.operation, x, grad, rows, _cut(grad_delta, rows))
            # ∂/∂first = grad ∘ second and the other way round, in place: neither half is needed after this.
            for half, grad_half in (("w1", second.mul_(grad_delta)), ("w2", first.mul_(grad_delta))):
                rows_a, grad_b = factors[f"{half}_a"][rows], grads[f"{half}_b"]
                _product_into(grads[f"{half}_a"][rows], grad_half, factors[f"{half}_b"].T, self.scale, added=False)
                _product_into(grad_b, rows_a.T, grad_half, self.scale, added=rows.start > 0)
        return grad_x, list(grads.values())


@dataclass(frozen=True)
class HalfHadamardDense:
    """`HadamardDense` where x and W are in half precision: products in it, sums of W and ΔW in float32."""

    operation: LayerOp
    scale: float

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        half = half_factors(factors, x.dtype)
        return tiled_product(self.operation, read, x, lambda weight, rows: self._rounded(weight, half, rows))

    def add_rows(self, weight: Tensor, factors: Tensors, rows: slice) -> Tensor:
        """These rows of W + ΔW, (…, in·k²), rounded stochastically."""
        return self._rounded(weight, half_factors(factors, weight.dtype), rows)

    def _rounded(self, weight: Tensor, half: HalfFactors, rows: slice) -> Tensor:
        first, second = _halves(half.tensors, rows, None, None)
        total = half.add_to(weight.float(), first.mul_(second), self.scale)
        return round_stochastically(total, weight.dtype, rows.start)

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        half = half_factors(factors, x.dtype)
        weight = read(x)[0].flatten(1) if needs_x else None
        grads = {name: torch.zeros_like(factor) for name, factor in factors.items()}
        first = second = grad_delta = grad_x = None
        for rows in row_tiles(self.operation, x):
            first, second = _halves(half.tensors, rows, first, second)
            if weight is not None:
                # To the nearest: losing a young ΔW here does no more harm than W's own rounding.
                total = half.nearest(weight[rows], first, second, self.scale)
                grad_x = add_grad_input(self.operation, grad_x, x, total, grad, rows)
            grad_delta = grad_weight_rows(self.operation, x, grad, rows, _cut(grad_delta, rows))
            for name, grad_half in (("w1", second.mul_(grad_delta)), ("w2", first.mul_(grad_delta))):
                # Summed over tiles in float32.
                grads[f"{name}_a"][rows].add_(grad_half @ half.tensors[f"{name}_b"].T, alpha=self.scale)
                grads[f"{name}_b"].add_(half.tensors[f"{name}_a"][rows].T @ grad_half, alpha=self.scale)
        return grad_x, [half.gradient(name, value) for name, value in grads.items()]


def _halves(f: Tensors, rows: slice, first: Tensor | None, second: Tensor | None) -> tuple[Tensor, Tensor]:
    """These rows of w1_a·w1_b and w2_a·w2_b, written over those of the tile before."""
    return (
        torch.mm(f["w1_a"][rows], f["w1_b"], out=_cut(first, rows)),
        torch.mm(f["w2_a"][rows], f["w2_b"], out=_cut(second, rows)),
    )


def _cut(buffer: Tensor | None, rows: slice) -> Tensor | None:
    """The last tile has fewer rows than the buffer."""
    return None if buffer is None else buffer[: rows.stop - rows.start]


def _product_into(out: Tensor, a: Tensor, b: Tensor, scale: float, *, added: bool) -> None:
    torch.addmm(out, a, b, beta=float(added), alpha=scale, out=out)


@dataclass(frozen=True)
class SmallBatch:
    """A linear layer at a few positions, such as a time embedding's: ΔW·x = (w1_a·M ∘ w2_a)·1.

    M = w1_b·diag(x)·w2_bᵀ is (r, r) for each position; nothing of ΔW's size is built.
    """

    operation: LayerOp
    scale: float

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        y = self.operation(x, *read(x))
        middle = _middle(_positions(x, factors), factors)
        delta_x = (factors["w1_a"] @ middle).mul_(factors["w2_a"]).sum(2).mul_(self.scale)
        return y.add_(delta_x.to(y.dtype).reshape(y.shape))

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        xs, grads = _positions(x, factors), _positions(grad, factors)[:, :, None] * self.scale
        middle = _middle(xs, factors)
        outer = grads * factors["w2_a"]
        grad_middle = factors["w1_a"].T @ outer
        inner = grad_middle @ factors["w2_b"]
        found = {
            "w1_a": (outer @ middle.transpose(1, 2)).sum(0),
            "w2_a": ((grads * factors["w1_a"]) @ middle).sum(0),
            "w1_b": (inner * xs[:, None]).sum(0),
            "w2_b": ((grad_middle.transpose(1, 2) @ factors["w1_b"]) * xs[:, None]).sum(0),
        }
        grad_x = None
        if needs_x:
            through_delta = (inner * factors["w1_b"]).sum(1)
            grad_x = self.operation.grad_input(x, read(x)[0], grad)
            grad_x.add_(through_delta.to(x.dtype).reshape(x.shape))
        # In the order of the factors, as autograd expects the gradients.
        return grad_x, [found[name] for name in factors]


def _middle(xs: Tensor, f: Tensors) -> Tensor:
    """(positions, in) -> (positions, r, r)."""
    return (f["w1_b"] * xs[:, None]) @ f["w2_b"].T


def _positions(x: Tensor, factors: Tensors) -> Tensor:
    """(…, c) -> (positions, c) in the factors' dtype."""
    return x.flatten(0, -2).to(next(iter(factors.values())).dtype)

"""LoHa without cores, ΔW = scale·(w1_a·w1_b) ∘ (w2_a·w2_b), in ways of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lib_trainer.adapter.delta_weight import Tensors
from lib_trainer.adapter.kernels.autograd import Gradients, LayerOp, ReadWeight
from lib_trainer.adapter.kernels.tiling import add_change, add_grad_input, blocks_of, grad_rows, product


@dataclass(frozen=True)
class Hadamard:
    """Through ΔW, of which some rows are built at a time, in place, in the same room.

    Attributes:
        scale: ΔW is multiplied by it.
        apart: ΔW·x is a product of its own, as for `forms.Whole`.
    """

    operation: LayerOp
    scale: float
    apart: bool = False

    def forward(self, read: ReadWeight, x: Tensor, factors: Tensors) -> Tensor:
        if not self.apart:
            return product(self.operation, read, x, lambda weight, rows: self.rows(weight, factors, rows))
        y = self.operation(x, *read(x))
        scaled = {**factors, "w2_a": factors["w2_a"] * self.scale}
        first = second = None
        for rows in blocks_of(self.operation, x):
            first, second = _pair(scaled, rows, first, second)
            add_change(self.operation, y, x, first.mul_(second).to(x.dtype), rows)
        return y

    def rows(self, weight: Tensor, factors: Tensors, rows: slice) -> Tensor:
        """These rows of W + ΔW, (…, in·k²)."""
        first, second = _pair(factors, rows, None, None)
        return torch.addcmul(weight, first, second, value=self.scale, out=first)

    def backward(self, read: ReadWeight, x: Tensor, factors: Tensors, grad: Tensor, needs_x: bool) -> Gradients:
        weight = read(x)[0].flatten(1) if needs_x else None
        grads = {name: torch.empty_like(factor) for name, factor in factors.items()}
        first = second = total = change = grad_x = None
        for rows in blocks_of(self.operation, x):
            first, second = _pair(factors, rows, first, second)
            if weight is not None:
                total = torch.empty_like(weight[rows]) if total is None else _cut(total, rows)
                torch.addcmul(weight[rows], first, second, value=self.scale, out=total)
                grad_x = add_grad_input(self.operation, grad_x, x, total, grad, rows)
            change = grad_rows(self.operation, x, grad, rows, _cut(change, rows))
            # What each half's gradient needs of the other is used up in place.
            for half, other in (("w1", second.mul_(change)), ("w2", first.mul_(change))):
                rows_a, grad_b = factors[f"{half}_a"][rows], grads[f"{half}_b"]
                _into(grads[f"{half}_a"][rows], other, factors[f"{half}_b"].T, self.scale, added=False)
                _into(grad_b, rows_a.T, other, self.scale, added=rows.start > 0)
        return grad_x, list(grads.values())


def _pair(f: Tensors, rows: slice, first: Tensor | None, second: Tensor | None) -> tuple[Tensor, Tensor]:
    """These rows of both halves, in the room of the rows before."""
    return (
        torch.mm(f["w1_a"][rows], f["w1_b"], out=_cut(first, rows)),
        torch.mm(f["w2_a"][rows], f["w2_b"], out=_cut(second, rows)),
    )


def _cut(room: Tensor | None, rows: slice) -> Tensor | None:
    return None if room is None else room[: rows.stop - rows.start]


def _into(out: Tensor, a: Tensor, b: Tensor, scale: float, *, added: bool) -> None:
    torch.addmm(out, a, b, beta=float(added), alpha=scale, out=out)


@dataclass(frozen=True)
class Few:
    """LoHa of a linear layer at a few places: ΔW·x = (w1_a·M ∘ w2_a)·1 with M = w1_b·diag(x)·w2_bᵀ of each place.

    Nothing of ΔW's size is built; M is (r, r).
    """

    operation: LayerOp
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


def _places(x: Tensor, factors: Tensors) -> Tensor:
    """(…, c) -> (places, c) in the factors' dtype."""
    return x.flatten(0, -2).to(next(iter(factors.values())).dtype)

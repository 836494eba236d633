"""The small products that a factored ΔW consists of. Each gives its output, and the gradients of input and weight.

Two memory layouts. Convolutions: (N, channels, H, W), where N counts images times the parts that LoKr's W1 mixes.
Linear layers: (positions, parts, channels).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lib_trainer.adapter.kernels.autograd import sum_of_products


class Contraction(Protocol):
    """One product of a factored ΔW, with its gradients. A `LayerOp` is one too."""

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor: ...

    def grad_input(self, x: Tensor, weight: Tensor, grad: Tensor) -> Tensor: ...

    def grad_weight(self, x: Tensor, grad: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Pointwise:
    """A matrix (c', c) on the channels of every pixel: (N, c, …) -> (N, c', …)."""

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch.bmm(weight.expand(len(x), -1, -1), x.flatten(2)).unflatten(2, x.shape[2:])

    def grad_input(self, x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
        return self(grad, weight.T)

    def grad_weight(self, x: Tensor, grad: Tensor) -> Tensor:
        return sum_of_products(grad.flatten(2), x.flatten(2).transpose(1, 2))


@dataclass(frozen=True)
class Mix:
    """LoKr's W1 (l, m) mixes the parts of each image: (B·m, c, …) -> (B·l, c, …)."""

    parts_in: int
    parts_out: int

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        # One product for all pixels: W1 acts on parts, whatever their channels.
        mixed = torch.bmm(weight.expand(len(x) // weight.shape[1], -1, -1), _by_image(x, weight.shape[1]))
        return mixed.reshape(-1, *x.shape[1:])

    def grad_input(self, x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
        return self(grad, weight.T)

    def grad_weight(self, x: Tensor, grad: Tensor) -> Tensor:
        return sum_of_products(_by_image(grad, self.parts_out), _by_image(x, self.parts_in).transpose(1, 2))


@dataclass(frozen=True)
class Rows:
    """A matrix (c', c) on the channels of every row: (positions, parts, c) -> (positions, parts, c')."""

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight.T

    def grad_input(self, x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
        return grad @ weight

    def grad_weight(self, x: Tensor, grad: Tensor) -> Tensor:
        return grad.flatten(0, 1).T @ x.flatten(0, 1)


@dataclass(frozen=True)
class MixRows:
    """LoKr's W1 (l, m) mixes the parts of every position: (positions, m, c) -> (positions, l, c)."""

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch.bmm(weight.expand(len(x), -1, -1), x)

    def grad_input(self, x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
        return self(grad, weight.T)

    def grad_weight(self, x: Tensor, grad: Tensor) -> Tensor:
        return sum_of_products(grad, x.transpose(1, 2))


def add_product(out: Tensor, contraction: Contraction, x: Tensor, weight: Tensor) -> None:
    """out += contraction(x, weight), accumulated by the product itself where BLAS can."""
    if isinstance(contraction, Pointwise):
        out.flatten(2).baddbmm_(weight.expand(len(x), -1, -1), x.flatten(2))
    elif isinstance(contraction, Rows):
        out.flatten(0, 1).addmm_(x.flatten(0, 1), weight.T)
    else:
        out.add_(contraction(x, weight))


def add_grad_input(out: Tensor, contraction: Contraction, x: Tensor, weight: Tensor, grad: Tensor) -> None:
    """out += the gradient of the contraction's input."""
    if isinstance(contraction, Pointwise | Rows):
        add_product(out, contraction, grad, weight.T)
    else:
        out.add_(contraction.grad_input(x, weight, grad))


def _by_image(x: Tensor, parts: int) -> Tensor:
    """(B·parts, c, …) -> (B, parts, c·…)."""
    return x.reshape(len(x) // parts, parts, -1)

"""The small operations that chains are made of. Each computes with a weight, and gives the gradients of both.

For convolutions columns (N, channels, places) travel between them, or pictures (N, channels, H, W); N counts pictures
and, for LoKr, the parts of them that W1 mixes. For linear layers it is rows (places, parts, channels).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lib_trainer.adapter.kernels.autograd import sum_of_products


class Step(Protocol):
    """One operation of a chain, with its gradients."""

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor: ...

    def grad_input(self, x: Tensor, weight: Tensor, grad: Tensor) -> Tensor: ...

    def grad_weight(self, x: Tensor, grad: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Pointwise:
    """A matrix (c', c) on the channels of every place: (N, c, …) -> (N, c', …)."""

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch.bmm(weight.expand(len(x), -1, -1), _columns(x)).unflatten(2, x.shape[2:])

    def grad_input(self, x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
        return self(grad, weight.T)

    def grad_weight(self, x: Tensor, grad: Tensor) -> Tensor:
        return sum_of_products(_columns(grad), _columns(x).transpose(1, 2))


@dataclass(frozen=True)
class Mix:
    """W1 (l, m) mixes the parts of each picture: (B·m, c, …) -> (B·l, c, …)."""

    parts_in: int
    parts_out: int

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        mixed = torch.bmm(weight.expand(len(x) // weight.shape[1], -1, -1), _parts(x, weight.shape[1]))
        return mixed.reshape(-1, *x.shape[1:])

    def grad_input(self, x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
        return self(grad, weight.T)

    def grad_weight(self, x: Tensor, grad: Tensor) -> Tensor:
        return sum_of_products(_parts(grad, self.parts_out), _parts(x, self.parts_in).transpose(1, 2))


@dataclass(frozen=True)
class Rows:
    """A matrix (c', c) on the channels of every row: (places, parts, c) -> (places, parts, c')."""

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        return x @ weight.T

    def grad_input(self, x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
        return grad @ weight

    def grad_weight(self, x: Tensor, grad: Tensor) -> Tensor:
        return grad.flatten(0, 1).T @ x.flatten(0, 1)


@dataclass(frozen=True)
class MixRows:
    """W1 (l, m) mixes the parts of every place: (places, m, c) -> (places, l, c)."""

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch.bmm(weight.expand(len(x), -1, -1), x)

    def grad_input(self, x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
        return self(grad, weight.T)

    def grad_weight(self, x: Tensor, grad: Tensor) -> Tensor:
        return sum_of_products(grad, x.transpose(1, 2))


def add_product(out: Tensor, step: Step, x: Tensor, weight: Tensor) -> None:
    """out += step(x, weight), without the product apart where that can be."""
    if isinstance(step, Pointwise):
        _columns(out).baddbmm_(weight.expand(len(x), -1, -1), _columns(x))
    elif isinstance(step, Rows):
        out.flatten(0, 1).addmm_(x.flatten(0, 1), weight.T)
    else:
        out.add_(step(x, weight))


def add_grad_input(out: Tensor, step: Step, x: Tensor, weight: Tensor, grad: Tensor) -> None:
    """out += the gradient of `step`'s input."""
    if isinstance(step, Pointwise | Rows):
        add_product(out, step, grad, weight.T)
    else:
        out.add_(step.grad_input(x, weight, grad))


def _columns(x: Tensor) -> Tensor:
    return x.flatten(2)


def _parts(x: Tensor, count: int) -> Tensor:
    return x.reshape(len(x) // count, count, -1)

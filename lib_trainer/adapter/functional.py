"""The maths of adapters as pure functions: ΔW, and layers whose backward keeps nothing of ΔW's size.

Shapes: `out`, `in` are a layer's sides, `k` its kernel, `r` the rank. Factor names are LyCORIS' without their
algorithm's prefix. Source: Yeh et al., "Navigating Text-To-Image Customization" (LyCORIS, ICLR 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

Tensors = Mapping[str, Tensor]
# Frozen weight and bias in the dtype and on the device of the tensor given.
ReadWeight = Callable[[Tensor], tuple[Tensor, Tensor | None]]


def tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """core (r, r, k, k), a (r, out), b (r, in) -> (out, in, k, k)."""
    return torch.einsum("ijkl,ip,jr->prkl", core, a, b)


def loha_delta(f: Tensors) -> Tensor:
    """(w1_a·w1_b) ∘ (w2_a·w2_b): w*_a (out, r), w*_b (r, in·k²) -> (out, in·k²).

    With cores t1, t2 (r, r, k, k) the tucker form: w*_a (r, out), w*_b (r, in) -> (out, in, k, k).
    """
    if "t1" in f:
        return tucker(f["t1"], f["w1_a"], f["w1_b"]) * tucker(f["t2"], f["w2_a"], f["w2_b"])
    return (f["w1_a"] @ f["w1_b"]) * (f["w2_a"] @ f["w2_b"])


def lokr_delta(f: Tensors) -> Tensor:
    """kron(W1, W2): W1 (out_l, in_m), W2 (out_k, in_n[, k, k]) -> (out, in[, k, k]) or (out, in·k²)."""
    first, second = lokr_first(f), lokr_second(f)
    return torch.kron(first.reshape(*first.shape, *[1] * (second.ndim - 2)), second.contiguous())


def lokr_first(f: Tensors) -> Tensor:
    return f["w1"] if "w1" in f else f["w1_a"] @ f["w1_b"]


def lokr_second(f: Tensors) -> Tensor:
    if "w2" in f:
        return f["w2"]
    return tucker(f["t2"], f["w2_a"], f["w2_b"]) if "t2" in f else f["w2_a"] @ f["w2_b"]


def locon_delta(f: Tensors) -> Tensor:
    """up (out, r[, 1, 1]) · down (r, in[, k, k]) -> (out, in·k²); with mid (r, r, k, k), (out, in, k, k)."""
    up, down = f["up"].flatten(1), f["down"].flatten(1)
    if "mid" in f:
        return tucker(f["mid"], up.T, down)
    return up @ down


DELTAS: dict[str, Callable[[Tensors], Tensor]] = {"loha": loha_delta, "lokr": lokr_delta, "locon": locon_delta}


@dataclass(frozen=True)
class Operation:
    """What a layer does with its weight: a matrix product, or a 2-d convolution.

    Attributes:
        shape: of the weight, (out, in) or (out, in / groups, k, k).
        stride, padding, dilation, groups: of the convolution.
    """

    shape: tuple[int, ...]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def is_conv(self) -> bool:
        return len(self.shape) == 4

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x (…, in) -> (…, out), or (B, in, H, W) -> (B, out, H', W')."""
        return F.conv2d(x, weight, bias, *self._settings) if self.is_conv else F.linear(x, weight, bias)

    def grad_input(self, x: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
        return conv2d_input(x.shape, weight, grad, *self._settings) if self.is_conv else grad @ weight

    def grad_weight(self, x: Tensor, grad: Tensor) -> Tensor:
        if self.is_conv:
            return conv2d_weight(x, self.shape, grad, *self._settings)
        return grad.flatten(0, -2).T @ x.flatten(0, -2)

    @property
    def _settings(self) -> tuple[Any, ...]:
        return self.stride, self.padding, self.dilation, self.groups


def frozen(operation: Operation, read: ReadWeight, x: Tensor) -> Tensor:
    """The host's own layer. Its weight is read again in backward, so no cast or dequantised copy is kept."""
    return _Layer.apply(operation, read, None, x)


def merged(
    operation: Operation,
    read: ReadWeight | None,
    delta: Callable[[Sequence[Tensor]], Tensor],
    x: Tensor,
    factors: Sequence[Tensor],
) -> Tensor:
    """operation(x, W + delta(factors)) in one product; backward keeps x and the factors, and builds ΔW again.

    Args:
        read: reads W and the bias; without it only x·ΔW is computed.
        delta: factors -> ΔW at its strength, float32, with as many elements as the weight.
    """
    return _Layer.apply(operation, read, delta, x, *factors)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operation: Operation, read: Any, delta: Any, x: Tensor, *factors: Tensor) -> Tensor:
        ctx.operation, ctx.read, ctx.delta = operation, read, delta
        ctx.save_for_backward(x, *factors)
        change = delta(factors).reshape(operation.shape) if delta else None
        weight, bias = _total(read, change, x)
        return operation(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        operation, (x, *factors) = ctx.operation, ctx.saved_tensors
        grad = grad.contiguous() if operation.is_conv else grad
        change, leaves = None, []
        if ctx.delta:
            with torch.enable_grad():
                leaves = [factor.detach().requires_grad_() for factor in factors]
                change = ctx.delta(leaves)
        grad_x = None
        if ctx.needs_input_grad[3]:
            shaped = None if change is None else change.detach().reshape(operation.shape)
            weight, _ = _total(ctx.read, shaped, x)
            grad_x = operation.grad_input(x, weight, grad)
            del weight, shaped
        grads: Sequence[Tensor | None] = ()
        if change is not None:
            grad_change = operation.grad_weight(x, grad).to(change.dtype).reshape(change.shape)
            grads = torch.autograd.grad(change, leaves, grad_change)
        return (None, None, None, grad_x, *grads)


def _total(read: ReadWeight | None, change: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """W + ΔW in the dtype of x, and the bias. `change` may be in float32."""
    if read is None:
        return change.to(x.dtype), None
    weight, bias = read(x)
    return (weight if change is None else weight + change), bias


def lokr_product(operation: Operation, f: Tensors, x: Tensor) -> Tensor:
    """(W1 ⊗ W2)·x without ΔW: a product with W2's inner half, W1 mixed in at the rank's width, then the outer half.

    For layers without groups. x (…, in) -> (…, out), or (B, in, H, W) -> (B, out, H', W').
    """
    first = lokr_first(f)
    if operation.is_conv:
        return _lokr_conv(operation, first, f, x)
    x = x.reshape(*x.shape[:-1], first.shape[1], -1)
    inner = F.linear(x, f["w2"] if "w2" in f else f["w2_b"])
    mixed = torch.matmul(first, inner)
    return (mixed if "w2" in f else F.linear(mixed, f["w2_a"])).flatten(-2)


def _lokr_conv(operation: Operation, first: Tensor, f: Tensors, x: Tensor) -> Tensor:
    kernel = operation.shape[2:]
    parts = x.reshape(x.shape[0] * first.shape[1], -1, *x.shape[2:])
    settings = {"stride": operation.stride, "padding": operation.padding, "dilation": operation.dilation}
    if "w2" in f:
        inner, outer = F.conv2d(parts, f["w2"], **settings), None
    elif "t2" in f:
        down = F.conv2d(parts, f["w2_b"][:, :, None, None])
        inner, outer = F.conv2d(down, f["t2"], **settings), f["w2_a"].T
    else:
        inner, outer = F.conv2d(parts, f["w2_b"].reshape(f["w2_b"].shape[0], -1, *kernel), **settings), f["w2_a"]
    size = inner.shape[2:]
    mixed = torch.matmul(first, inner.reshape(x.shape[0], first.shape[1], -1))
    if outer is None:
        return mixed.reshape(x.shape[0], -1, *size)
    mixed = mixed.reshape(x.shape[0] * first.shape[0], -1, *size)
    return F.conv2d(mixed, outer[:, :, None, None]).reshape(x.shape[0], -1, *size)


def locon_product(operation: Operation, f: Tensors, x: Tensor) -> Tensor:
    """up·(mid·)(down·x), the classic LoRA. For layers without groups."""
    if not operation.is_conv:
        return F.linear(F.linear(x, f["down"]), f["up"])
    settings = (None, operation.stride, operation.padding, operation.dilation)
    if "mid" in f:
        return F.conv2d(F.conv2d(F.conv2d(x, f["down"]), f["mid"], *settings), f["up"])
    return F.conv2d(F.conv2d(x, f["down"], *settings), f["up"])


PRODUCTS: dict[str, Callable[[Operation, Tensors, Tensor], Tensor]] = {"lokr": lokr_product, "locon": locon_product}

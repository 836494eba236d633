"""ΔW·x as small products one after the other, so that ΔW itself is never built.

Sources: (W1 ⊗ W2)·x by Yeh et al. (LyCORIS, ICLR 2024); (A·B) ∘ (C·D) = (A • C)·(B • D) with all r² products of the
columns of A and C, and of the rows of B and D (Khatri and Rao, 1968).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lib_trainer.adapter.delta_weight import (
    Tensors,
    lokr_first,
    lokr_first_gradients,
    lokr_second,
    lokr_second_gradients,
)
from lib_trainer.adapter.kernels.autograd import LayerOp, runs_on_cpu
from lib_trainer.adapter.kernels.contractions import (
    Contraction,
    Mix,
    MixRows,
    Pointwise,
    Rows,
    add_grad_input,
    add_product,
)

# Factors -> the weight of each contraction, scaled; differentiable, and small.
MakeWeights = Callable[[Tensors], list[Tensor]]
# Factors, gradients of those weights in the factors' dtype -> the factors' gradients, by name.
Gradients = Callable[[Tensors, Sequence[Tensor]], dict[str, Tensor]]
# What lies between two contractions then stays in a CPU's second-level cache. Half precision pays more for each call.
_POSITIONS_AT_ONCE = 512
_HALF_POSITIONS_AT_ONCE = 8192
# Floats of a CPU's vector register: LoKr cuts four input channels into single ones, which gains nothing.
_VECTOR_LANES = 8


@dataclass(frozen=True)
class FactoredDelta:
    """ΔW·x of one layer without ΔW.

    Attributes:
        operation: of the layer.
        contractions: in order; a convolution that is not 1×1 is one of them.
        weights: makes their weights from the factors.
        gradients: of `weights`, written out: autograd within backward costs more than a small layer. None leaves it to
            autograd.
        parts_in, parts_out: into how many parts LoKr cuts the channels of the input and of the output.
    """

    operation: LayerOp
    contractions: tuple[Contraction, ...]
    weights: MakeWeights
    gradients: Gradients | None = None
    parts_in: int = 1
    parts_out: int = 1

    def add_to(self, y: Tensor, x: Tensor, weights: Sequence[Tensor]) -> None:
        """y += ΔW·x, for contiguous y (…, out) or (B, out, H', W')."""
        for value, out in zip(self._pieces(x, self.parts_in), self._pieces(y, self.parts_out), strict=True):
            for contraction, weight in zip(self.contractions[:-1], weights, strict=False):
                value = contraction(value, weight)
            add_product(out, self.contractions[-1], value, weights[-1])

    def backward(
        self, x: Tensor, grad: Tensor, weights: Sequence[Tensor], grad_x: Tensor | None = None
    ) -> list[Tensor]:
        """Gradients of the contractions' weights; adds that of x to `grad_x`, contiguous, if given."""
        xs, grads = self._pieces(x, self.parts_in), self._pieces(grad, self.parts_out)
        grad_xs = [None] * len(xs) if grad_x is None else self._pieces(grad_x, self.parts_in)
        first, *others = [self._backward(*piece, weights) for piece in zip(xs, grads, grad_xs, strict=True)]
        # Each piece saw other positions, so the gradients of the weights add up.
        for other in others:
            for total, part in zip(first, other, strict=True):
                total += part
        return first

    def factor_gradients(self, factors: Tensors, grads: Sequence[Tensor]) -> Sequence[Tensor]:
        """The factors' gradients in their order, from those of the contractions' weights."""
        dtype = next(iter(factors.values())).dtype
        grads = [grad.to(dtype) for grad in grads]
        if self.gradients is not None:
            found = self.gradients(factors, grads)
            return [found[name].reshape(factor.shape) for name, factor in factors.items()]
        with torch.enable_grad():
            leaves = {name: factor.detach().requires_grad_() for name, factor in factors.items()}
            weights = self.weights(leaves)
        return torch.autograd.grad(weights, list(leaves.values()), grads)

    def _backward(self, x: Tensor, grad: Tensor, grad_x: Tensor | None, weights: Sequence[Tensor]) -> list[Tensor]:
        # The values between the contractions are recomputed: forward keeps x alone.
        values = [x]
        for contraction, weight in zip(self.contractions[:-1], weights, strict=False):
            values.append(contraction(values[-1], weight))
        grads = []
        for number in reversed(range(len(self.contractions))):
            contraction, weight = self.contractions[number], weights[number]
            grads.append(contraction.grad_weight(values[number], grad))
            if number:
                grad = contraction.grad_input(values[number], weight, grad)
            elif grad_x is not None:
                add_grad_input(grad_x, contraction, x, weight, grad)
        return grads[::-1]

    def multiply_adds(self, weights: Sequence[Tensor]) -> float:
        """Multiply-adds of ΔW·x for each position; channels that leave a vector register empty count as full."""
        total, parts, channels = 0.0, self.parts_in, self.operation.shape[1] // self.parts_in
        for contraction, weight in zip(self.contractions, weights, strict=True):
            if isinstance(contraction, Mix | MixRows):
                total, parts = total + weight.numel() * channels, self.parts_out
            else:
                wasted = max(1, _VECTOR_LANES / min(weight.shape[:2]))
                total, channels = total + parts * weight.numel() * wasted, len(weight)
        return total

    def _pieces(self, x: Tensor, parts: int) -> Sequence[Tensor]:
        """(…, c) -> some (positions, parts, c / parts), or (B, c, H, W) -> one (B·parts, c / parts, H, W); views."""
        if self.operation.is_conv:
            return (x.reshape(len(x) * parts, -1, *x.shape[2:]),)
        rows = x.reshape(-1, parts, x.shape[-1] // parts)
        most = _HALF_POSITIONS_AT_ONCE if x.dtype.itemsize == 2 else _POSITIONS_AT_ONCE
        return rows.split(most) if rows.shape[0] > most and runs_on_cpu(x) else (rows,)


def factored_delta(algo: str, factors: Tensors, operation: LayerOp, scale: float) -> FactoredDelta | None:
    """ΔW times `scale`, factored; None for convolutions in groups.

    `factors` gives names and shapes only: the weights are made anew for each product.
    """
    # Grouped convolutions would need one factorisation per group; no diffusion model has any.
    if operation.groups != 1:
        return None
    return {"loha": _loha, "lokr": _lokr, "locon": _locon}[algo](factors, operation, scale)


def _loha(f: Tensors, operation: LayerOp, scale: float) -> FactoredDelta:
    # Khatri-Rao: a LoHa of rank r is a LoCon of rank r², with these products as its down and up.
    pairs = f["w1_b"].shape[0] ** 2

    def up(f: Tensors) -> Tensor:
        one, other = (f["w1_a"].T, f["w2_a"].T) if "t1" in f else (f["w1_a"], f["w2_a"])
        return (one[:, :, None] * other[:, None, :]).flatten(1) * scale

    def down(f: Tensors) -> Tensor:
        return (f["w1_b"][:, None, :] * f["w2_b"][None, :, :]).flatten(0, 1)

    def core(f: Tensors) -> Tensor:
        return (f["t1"][:, None, :, None] * f["t2"][None, :, None, :]).flatten(2, 3).flatten(0, 1)

    if "t1" in f:
        contractions = (Pointwise(), _spatial(operation, pairs, pairs), Pointwise())
        return FactoredDelta(operation, contractions, lambda f: [down(f), core(f), up(f)])
    first, shape = _kernel_contraction(operation, pairs, operation.shape[1])

    def gradients(f: Tensors, grads: Sequence[Tensor]) -> dict[str, Tensor]:
        rank = len(f["w1_b"])
        down, up = grads[0].reshape(rank, rank, -1), (grads[1] * scale).unflatten(1, (rank, rank))
        return {
            "w1_a": (up * f["w2_a"][:, None, :]).sum(2),
            "w2_a": (up * f["w1_a"][:, :, None]).sum(1),
            "w1_b": (down * f["w2_b"][None, :, :]).sum(1),
            "w2_b": (down * f["w1_b"][:, None, :]).sum(0),
        }

    contractions = (first, _channel_matrix(operation))
    return FactoredDelta(operation, contractions, lambda f: [down(f).reshape(shape), up(f)], gradients)


def _locon(f: Tensors, operation: LayerOp, scale: float) -> FactoredDelta:
    rank = f["down"].shape[0]
    if "mid" in f:
        contractions = (Pointwise(), _spatial(operation, rank, rank), Pointwise())
        return FactoredDelta(
            operation,
            contractions,
            lambda f: [f["down"].flatten(1), f["mid"], f["up"].flatten(1) * scale],
            lambda f, grads: {"down": grads[0], "mid": grads[1], "up": grads[2] * scale},
        )
    first, shape = _kernel_contraction(operation, rank, operation.shape[1])
    return FactoredDelta(
        operation,
        (first, _channel_matrix(operation)),
        lambda f: [f["down"].reshape(shape), f["up"].flatten(1) * scale],
        lambda f, grads: {"down": grads[0], "up": grads[1] * scale},
    )


def _lokr(f: Tensors, operation: LayerOp, scale: float) -> FactoredDelta:
    rows, columns = (len(f["w1"]), f["w1"].shape[1]) if "w1" in f else (len(f["w1_a"]), f["w1_b"].shape[1])
    out, inner = operation.shape[0] // rows, operation.shape[1] // columns
    mix = Mix(columns, rows) if operation.is_conv else MixRows()
    if "t2" in f:
        rank = len(f["t2"])
        contractions = (Pointwise(), _spatial(operation, rank, rank), mix, Pointwise())
        weights = lambda f: [f["w2_b"], f["t2"], lokr_first(f) * scale, f["w2_a"].T]  # noqa: E731
        return FactoredDelta(operation, contractions, weights, None, columns, rows)
    rank = 0 if "w2" in f else len(f["w2_b"])
    contraction, shape = _kernel_contraction(operation, rank or out, inner)
    kernel = operation.shape[2] * operation.shape[3] if operation.is_conv else 1
    # W2 stays in two halves while those take fewer multiply-adds than their product.
    if rank and rank * (inner * kernel + out) < inner * kernel * out:
        contractions = (contraction, mix, _channel_matrix(operation))
        weights = lambda f: [f["w2_b"].reshape(shape), lokr_first(f) * scale, f["w2_a"]]  # noqa: E731
        halves = lambda f, g: {"w2_b": g[0], **lokr_first_gradients(f, g[1] * scale), "w2_a": g[2]}  # noqa: E731
        return FactoredDelta(operation, contractions, weights, halves, columns, rows)
    contraction, shape = _kernel_contraction(operation, out, inner)
    # W1 mixes where there are fewer channels.
    mixes_first = inner < out

    def made(f: Tensors) -> list[Tensor]:
        pair = [lokr_first(f) * scale, lokr_second(f).reshape(shape)]
        return pair if mixes_first else pair[::-1]

    def gradients(f: Tensors, grads: Sequence[Tensor]) -> dict[str, Tensor]:
        grad_first, grad_second = grads if mixes_first else grads[::-1]
        return {**lokr_first_gradients(f, grad_first * scale), **lokr_second_gradients(f, grad_second)}

    contractions = (mix, contraction) if mixes_first else (contraction, mix)
    return FactoredDelta(operation, contractions, made, gradients, columns, rows)


def _kernel_contraction(operation: LayerOp, out: int, inner: int) -> tuple[Contraction, tuple[int, ...]]:
    """The contraction that has the layer's kernel, and the shape of its weight."""
    if operation.is_pointwise:
        return _channel_matrix(operation), (out, inner)
    contraction = _spatial(operation, out, inner)
    return contraction, contraction.shape


def _channel_matrix(operation: LayerOp) -> Contraction:
    """A matrix on the channels, in the memory layout of this layer."""
    return Pointwise() if operation.is_conv else Rows()


def _spatial(operation: LayerOp, out: int, inner: int) -> LayerOp:
    """The layer's own convolution between fewer channels."""
    return replace(operation, shape=(out, inner, *operation.shape[2:]))

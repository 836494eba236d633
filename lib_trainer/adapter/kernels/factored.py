"""ΔW as a chain of small steps that act one after the other, so that ΔW itself is never built.

A step is an operation of `adapter.steps` and its weight. Sources: (W1 ⊗ W2)·x by Yeh et al. (LyCORIS, ICLR 2024);
(A·B) ∘ (C·D) = (A • C)·(B • D) with all r² products of the columns of A and C, and of the rows of B and D (Khatri and
Rao, 1968).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from lib_trainer.adapter.delta_weight import Tensors, lokr_first, lokr_second
from lib_trainer.adapter.kernels.autograd import LayerOp, is_on_processor
from lib_trainer.adapter.kernels.contractions import Mix, MixRows, Pointwise, Rows, Step, add_grad_input, add_product

# A chain's factors -> the weights of its steps, scaled; differentiable, and small.
MakeWeights = Callable[[Tensors], list[Tensor]]
# So many rows' values between the steps stay in a processor's cache.
_PLACES_AT_ONCE = 512


@dataclass(frozen=True)
class Chain:
    """ΔW·x of one layer without ΔW.

    Attributes:
        operation: of the layer.
        steps: in order; a convolution that is not 1×1 stands among them.
        weights: makes their weights from the factors.
        parts_in, parts_out: into how many parts LoKr cuts the channels of the input and of the output.
    """

    operation: LayerOp
    steps: tuple[Step, ...]
    weights: MakeWeights
    parts_in: int = 1
    parts_out: int = 1

    def add_to(self, y: Tensor, x: Tensor, weights: Sequence[Tensor]) -> None:
        """y += ΔW·x, for contiguous y (…, out) or (B, out, H', W')."""
        for value, out in zip(self._pieces(x, self.parts_in), self._pieces(y, self.parts_out), strict=True):
            for step, weight in zip(self.steps[:-1], weights, strict=False):
                value = step(value, weight)
            add_product(out, self.steps[-1], value, weights[-1])

    def backward(
        self, x: Tensor, grad: Tensor, weights: Sequence[Tensor], grad_x: Tensor | None = None
    ) -> list[Tensor]:
        """Gradients of the steps' weights; that of x is added to `grad_x`, contiguous, where it is given."""
        xs, grads = self._pieces(x, self.parts_in), self._pieces(grad, self.parts_out)
        grad_xs = [None] * len(xs) if grad_x is None else self._pieces(grad_x, self.parts_in)
        first, *others = [self._backward(*piece, weights) for piece in zip(xs, grads, grad_xs, strict=True)]
        for other in others:
            for total, part in zip(first, other, strict=True):
                total += part
        return first

    def _backward(self, x: Tensor, grad: Tensor, grad_x: Tensor | None, weights: Sequence[Tensor]) -> list[Tensor]:
        values = [x]
        for step, weight in zip(self.steps[:-1], weights, strict=False):
            values.append(step(values[-1], weight))
        grads = []
        for number in reversed(range(len(self.steps))):
            step, weight = self.steps[number], weights[number]
            grads.append(step.grad_weight(values[number], grad))
            if number:
                grad = step.grad_input(values[number], weight, grad)
            elif grad_x is not None:
                add_grad_input(grad_x, step, x, weight, grad)
        return grads[::-1]

    def multiply_adds(self, weights: Sequence[Tensor]) -> int:
        """How many one product takes for each place."""
        total, parts, channels = 0, self.parts_in, self.operation.shape[1] // self.parts_in
        for step, weight in zip(self.steps, weights, strict=True):
            if isinstance(step, Mix | MixRows):
                total, parts = total + weight.numel() * channels, self.parts_out
            else:
                total, channels = total + parts * weight.numel(), len(weight)
        return total

    def _pieces(self, x: Tensor, parts: int) -> Sequence[Tensor]:
        """(…, c) -> some (places, parts, c / parts), or (B, c, H, W) -> one (B·parts, c / parts, H, W); views of x."""
        if self.operation.is_conv:
            return (x.reshape(len(x) * parts, -1, *x.shape[2:]),)
        rows = x.reshape(-1, parts, x.shape[-1] // parts)
        return rows.split(_PLACES_AT_ONCE) if is_on_processor(x) else (rows,)


def chain_of(algo: str, factors: Tensors, operation: LayerOp, scale: float) -> Chain | None:
    """The chain for factors of these shapes, times `scale`; None for convolutions in groups.

    `factors` tells shapes and names only: the chain's weights are made anew for each product.
    """
    if operation.groups != 1:
        return None
    return {"loha": _loha, "lokr": _lokr, "locon": _locon}[algo](factors, operation, scale)


def _loha(f: Tensors, operation: LayerOp, scale: float) -> Chain:
    pairs = f["w1_b"].shape[0] ** 2

    def outer(f: Tensors) -> Tensor:
        one, other = (f["w1_a"].T, f["w2_a"].T) if "t1" in f else (f["w1_a"], f["w2_a"])
        return (one[:, :, None] * other[:, None, :]).flatten(1) * scale

    def inner(f: Tensors) -> Tensor:
        return (f["w1_b"][:, None, :] * f["w2_b"][None, :, :]).flatten(0, 1)

    def core(f: Tensors) -> Tensor:
        return (f["t1"][:, None, :, None] * f["t2"][None, :, None, :]).flatten(2, 3).flatten(0, 1)

    if "t1" in f:
        middle = _spatial(operation, pairs, pairs)
        steps = (Pointwise(), middle, Pointwise())
        return Chain(operation, steps, lambda f: [inner(f), core(f), outer(f)])
    first, shape = _first_step(operation, pairs, operation.shape[1])
    return Chain(operation, (first, _matrix(operation)), lambda f: [inner(f).reshape(shape), outer(f)])


def _locon(f: Tensors, operation: LayerOp, scale: float) -> Chain:
    rank = f["down"].shape[0]
    if "mid" in f:
        steps = (Pointwise(), _spatial(operation, rank, rank), Pointwise())
        return Chain(operation, steps, lambda f: [f["down"].flatten(1), f["mid"], f["up"].flatten(1) * scale])
    first, shape = _first_step(operation, rank, operation.shape[1])
    steps = (first, _matrix(operation))
    return Chain(operation, steps, lambda f: [f["down"].reshape(shape), f["up"].flatten(1) * scale])


def _lokr(f: Tensors, operation: LayerOp, scale: float) -> Chain:
    rows, columns = (len(f["w1"]), f["w1"].shape[1]) if "w1" in f else (len(f["w1_a"]), f["w1_b"].shape[1])
    out, inner = operation.shape[0] // rows, operation.shape[1] // columns
    mix = Mix(columns, rows) if operation.is_conv else MixRows()

    def first(f: Tensors) -> Tensor:
        return lokr_first(f) * scale

    if "t2" in f:
        rank = len(f["t2"])
        steps = (Pointwise(), _spatial(operation, rank, rank), mix, Pointwise())
        return Chain(operation, steps, lambda f: [f["w2_b"], f["t2"], first(f), f["w2_a"].T], columns, rows)
    rank = 0 if "w2" in f else len(f["w2_b"])
    step, shape = _first_step(operation, rank or out, inner)
    places = operation.shape[2] * operation.shape[3] if operation.is_conv else 1
    if rank and rank * (inner * places + out) < inner * places * out:
        steps = (step, mix, _matrix(operation))
        return Chain(operation, steps, lambda f: [f["w2_b"].reshape(shape), first(f), f["w2_a"]], columns, rows)
    step, shape = _first_step(operation, out, inner)

    def second(f: Tensors) -> Tensor:
        return lokr_second(f).reshape(shape)

    # W1 is mixed in where there are fewer channels.
    if inner < out:
        return Chain(operation, (mix, step), lambda f: [first(f), second(f)], columns, rows)
    return Chain(operation, (step, mix), lambda f: [second(f), first(f)], columns, rows)


def _first_step(operation: LayerOp, out: int, inner: int) -> tuple[Step, tuple[int, ...]]:
    """The step that sees the layer's kernel, and the shape of its weight."""
    if operation.is_pointwise:
        return _matrix(operation), (out, inner)
    step = _spatial(operation, out, inner)
    return step, step.shape


def _matrix(operation: LayerOp) -> Step:
    """The step that a matrix on the channels is."""
    return Pointwise() if operation.is_conv else Rows()


def _spatial(operation: LayerOp, out: int, inner: int) -> LayerOp:
    return replace(operation, shape=(out, inner, *operation.shape[2:]))

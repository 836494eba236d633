"""Chooses and builds the kernel strategy of an adapted layer, by a count of what each strategy computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import torch
from torch import Tensor

from lib_trainer.adapter.delta_weight import DELTAS, Tensors, lokr_first, lokr_second
from lib_trainer.adapter.kernels.autograd import LayerOp, Strategy
from lib_trainer.adapter.kernels.factored import factored_delta
from lib_trainer.adapter.kernels.half import AddRows, add_delta_in_half, in_half, nearest_in_half
from lib_trainer.adapter.kernels.loha import HadamardDense, HalfHadamardDense, SmallBatch
from lib_trainer.adapter.kernels.strategies import Dense, DenseForward, HalfDense, LowRank

# `dense`: one product with W + ΔW, gradients through that of ΔW. `dense_forward`: the same product, gradients through
# the factored form. `low_rank`: ΔW is never built. `small_batch`: LoHa at a few positions.
StrategyName = Literal["dense", "dense_forward", "low_rank", "small_batch"]
# Factor name -> shape, hashable.
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Costs:
    """Costs in multiply-adds of a large matrix product, fitted to timings of every strategy on one CPU thread.

    Attributes:
        element: an element of ΔW that is built, added or multiplied: memory bandwidth, not arithmetic.
        rank: a multiply-add of a product over a small rank.
        conv_gradient: a multiply-add of a convolution weight's gradient.
        factored: a multiply-add of the factored form.
        low_rank_calls: the many small kernel calls of `low_rank`, for a layer.
    """

    element: float
    rank: float
    conv_gradient: float
    factored: float
    low_rank_calls: float


# Float32, on the layers of SD 1.5 and SDXL: they name the fastest strategy of 98 % of the layers.
_FULL_COSTS = Costs(element=30, rank=2, conv_gradient=2, factored=1, low_rank_calls=16e6)
# Bfloat16, on the layers of SD 1.5 at 512 px: on the timings that they were fitted to, 0.6 % slower than the fastest
# strategy of each layer. Its large products take a quarter of float32's time, small ones and memory traffic do not.
_HALF_COSTS = Costs(element=700, rank=0.3, conv_gradient=2, factored=3.4, low_rank_calls=5.6e8)


def choose_strategy(
    algo: str, factors: Tensors, operation: LayerOp, x_shape: tuple[int, ...], *, precise: bool
) -> StrategyName:
    """The strategy with the lowest cost for a layer and an input of this shape.

    Args:
        factors: only names and shapes are read.
        precise: the compute dtype is that of the factors.
    """
    shapes = tuple((name, tuple(factor.shape)) for name, factor in factors.items())
    return _choose(algo, shapes, operation, x_shape, precise)


@lru_cache(maxsize=4096)
def _choose(algo: str, shapes: Shapes, operation: LayerOp, x_shape: tuple[int, ...], precise: bool) -> StrategyName:
    elements = math.prod(operation.shape)
    rank = dict(shapes)["w1_b"][0] if algo == "loha" else 0
    # r² values at each position take fewer multiply-adds than building ΔW.
    if algo == "loha" and not operation.is_conv and math.prod(x_shape[:-1]) * rank * sum(operation.shape) < elements:
        return "small_batch"
    factors = {name: torch.empty(shape, device="meta") for name, shape in shapes}
    factored = factored_delta(algo, factors, operation, 1.0)
    weights = factored.weights(factors) if factored else []
    # A LoHa of high rank has r² products, which can be as large as ΔW.
    if factored is None or sum(weight.numel() for weight in weights) >= elements:
        return "dense"
    costs = _FULL_COSTS if precise else _HALF_COSTS
    positions = max(1, math.prod(x_shape) // operation.shape[1] // math.prod(operation.stride))
    # Costs for one element of W. W's own product is left out: every strategy has it, forward and backward.
    product = costs.factored * positions * factored.multiply_adds(weights) / elements
    rank_products = costs.rank * 2 * rank
    build = costs.element + rank_products
    grad_weight = positions * (1 if operation.is_pointwise else costs.conv_gradient)
    found: dict[StrategyName, float] = {
        # Built forward and backward; then the gradients of both halves.
        "dense": grad_weight + 2 * build + 2 * (costs.element + rank_products),
        # Forward, its recomputation, and the gradients of weights and input.
        "low_rank": 4 * product + costs.low_rank_calls / elements,
        "dense_forward": 3 * product + 2 * build,
    }
    return min(found, key=found.__getitem__)


def build_strategy(
    name: StrategyName, algo: str, factors: Tensors, operation: LayerOp, scale: float, *, precise: bool
) -> Strategy:
    """The strategy, ready for one layer.

    Args:
        scale: ΔW is multiplied by it.
    """
    if name == "small_batch":
        return SmallBatch(operation, scale)
    factored = None if name == "dense" else factored_delta(algo, factors, operation, scale)
    if factored is not None and name == "low_rank":
        return LowRank(factored)
    if factored is not None:
        return DenseForward(factored, *_row_builders(algo, factors, operation, scale, precise=precise))
    if algo == "loha" and "t1" not in factors:
        return HadamardDense(operation, scale) if precise else HalfHadamardDense(operation, scale)
    return dense(operation, lambda values: DELTAS[algo](values) * scale, precise=precise)


def dense(operation: LayerOp, delta: Callable[[Tensors], Tensor], *, precise: bool) -> Strategy:
    """The dense strategy for any ΔW that is linear in each factor."""
    return Dense(operation, delta) if precise else HalfDense(operation, delta)


def _row_builders(
    algo: str, factors: Tensors, operation: LayerOp, scale: float, *, precise: bool
) -> tuple[AddRows, AddRows, int]:
    """Builders of rows of W + ΔW for the output and for the gradient of x, and what rows come in multiples of."""
    if algo == "lokr":
        rows = len(factors["w1"] if "w1" in factors else factors["w1_a"])
        add_rows, unit = partial(_add_lokr, scale), operation.shape[0] // rows
    elif algo == "loha" and "t1" not in factors:
        add_rows, unit = HadamardDense(operation, scale).add_rows, 1
    else:
        add_rows, unit = partial(_add_delta, algo, scale), operation.shape[0]
    if precise:
        return add_rows, add_rows, unit
    if algo == "lokr":
        return in_half(add_rows), nearest_in_half(add_rows), unit
    # Products as large as W are too large for float32.
    if algo == "loha" and "t1" not in factors:
        return HalfHadamardDense(operation, scale).add_rows, nearest_in_half(add_rows), unit
    return partial(add_delta_in_half, DELTAS[algo], scale), nearest_in_half(add_rows), unit


def _add_delta(algo: str, scale: float, weight: Tensor, f: Tensors, _rows: slice) -> Tensor:
    return weight.add(DELTAS[algo](f).flatten(1), alpha=scale)


def _add_lokr(scale: float, weight: Tensor, f: Tensors, rows: slice) -> Tensor:
    second = lokr_second(f).flatten(1)
    out, inner = second.shape
    first = lokr_first(f)[rows.start // out : rows.stop // out]
    parts = weight.reshape(len(first), out, first.shape[1], inner)
    # kron by broadcasting, added while it is made: torch.kron would write ΔW and read it again.
    return torch.addcmul(parts, first[:, None, :, None], second[:, None, :], value=scale).flatten(2).flatten(0, 1)

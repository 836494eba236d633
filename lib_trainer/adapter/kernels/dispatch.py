"""Chooses and builds the kernel strategy of an adapted layer, by a count of what each strategy computes."""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import Literal

import torch
from torch import Tensor

from lib_trainer.adapter.delta_weight import DELTAS, Tensors, lokr_first, lokr_second
from lib_trainer.adapter.kernels.autograd import LayerOp, Strategy
from lib_trainer.adapter.kernels.factored import factored_delta
from lib_trainer.adapter.kernels.loha import HadamardDense, SmallBatch
from lib_trainer.adapter.kernels.strategies import AddRows, Dense, DenseForward, LowRank

# `dense`: one product with W + ΔW, gradients through that of ΔW. `dense_forward`: the same product, gradients through
# the factored form; in full precision only. `low_rank`: ΔW is never built. `small_batch`: LoHa at a few positions.
StrategyName = Literal["dense", "dense_forward", "low_rank", "small_batch"]
# Factor name -> shape, hashable.
Shapes = tuple[tuple[str, tuple[int, ...]], ...]

# Costs in multiply-adds of a large matrix product, fitted to timings of every strategy on the layers of SD 1.5 and SDXL
# (one CPU thread, float32): they name the fastest strategy of 98 % of the layers.
# An element of ΔW that is built, added or multiplied: memory bandwidth, not arithmetic.
_ELEMENT_COST = 30
# A multiply-add of a product over a small rank.
_RANK_COST = 2
# The gradient of a convolution's weight takes twice the time of a matrix product of that size.
_CONV_GRADIENT_COST = 2
# The many small kernel calls of `low_rank`, for a layer.
_LOW_RANK_CALLS = 16e6


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
    positions = max(1, math.prod(x_shape) // operation.shape[1] // math.prod(operation.stride))
    # Costs for one element of W. W's own product is left out: every strategy has it, forward and backward.
    product = positions * factored.multiply_adds(weights) / elements
    rank_products = _RANK_COST * 2 * rank
    build = _ELEMENT_COST + rank_products
    grad_weight = positions * (1 if operation.is_pointwise else _CONV_GRADIENT_COST)
    # Built forward and backward; then the gradients of both halves.
    dense = grad_weight + 2 * build + 2 * (_ELEMENT_COST + rank_products)
    costs: dict[StrategyName, float] = {
        "dense": dense if precise else dense + positions,
        # Forward, its recomputation, and the gradients of weights and input.
        "low_rank": 4 * product + _LOW_RANK_CALLS / elements,
    }
    if precise:
        costs["dense_forward"] = 3 * product + 2 * build
    return min(costs, key=costs.__getitem__)


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
    if factored is not None and (name == "low_rank" or not precise):
        return LowRank(factored)
    if factored is not None:
        return DenseForward(factored, *_row_builder(algo, factors, operation, scale))
    if algo == "loha" and "t1" not in factors:
        return HadamardDense(operation, scale, separate_delta=not precise)
    return Dense(operation, lambda values: DELTAS[algo](values) * scale, separate_delta=not precise)


def _row_builder(algo: str, factors: Tensors, operation: LayerOp, scale: float) -> tuple[AddRows, int]:
    """Builds rows of W + ΔW, and what they come in multiples of."""
    if algo == "lokr":
        rows = len(factors["w1"] if "w1" in factors else factors["w1_a"])
        return partial(_add_lokr, scale), operation.shape[0] // rows
    if algo == "loha" and "t1" not in factors:
        return HadamardDense(operation, scale).add_rows, 1
    return lambda weight, f, _rows: weight.add(DELTAS[algo](f).flatten(1), alpha=scale), operation.shape[0]


def _add_lokr(scale: float, weight: Tensor, f: Tensors, rows: slice) -> Tensor:
    second = lokr_second(f).flatten(1)
    out, inner = second.shape
    first = lokr_first(f)[rows.start // out : rows.stop // out]
    parts = weight.reshape(len(first), out, first.shape[1], inner)
    # kron by broadcasting, added while it is made: torch.kron would write ΔW and read it again.
    return torch.addcmul(parts, first[:, None, :, None], second[:, None, :], value=scale).flatten(2).flatten(0, 1)

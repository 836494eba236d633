"""Builds the kernel strategy of an adapted layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from lib_trainer.adapter.delta_weight import DELTAS, Tensors, locon_gradients
from lib_trainer.adapter.kernels.autograd import LayerOp, Strategy
from lib_trainer.adapter.kernels.candidates import INT8
from lib_trainer.adapter.kernels.factored import factored_delta
from lib_trainer.adapter.kernels.half import AddRows, add_delta_in_half, in_half, nearest_in_half
from lib_trainer.adapter.kernels.int8 import Int8Base
from lib_trainer.adapter.kernels.loha import HadamardDense, HalfHadamardDense, SmallBatch
from lib_trainer.adapter.kernels.lokr import HalfKroneckerDense, KroneckerDense
from lib_trainer.adapter.kernels.strategies import DeltaGradients, Dense, DenseForward, HalfDense, LowRank


def build_strategy(
    name: str, algo: str, factors: Tensors, operation: LayerOp, scale: float, *, precise: bool
) -> Strategy:
    """The strategy, ready for one layer.

    Args:
        name: a `StrategyName`, or one with `INT8` after it.
        scale: ΔW is multiplied by it.
    """
    if name.endswith(INT8):
        delta = build_strategy(name.removesuffix(INT8), algo, factors, operation, scale, precise=precise)
        return Int8Base(operation, delta)
    if name == "small_batch":
        return SmallBatch(operation, scale)
    factored = None if name == "dense" else factored_delta(algo, factors, operation, scale)
    if factored is not None and name == "low_rank":
        return LowRank(factored)
    if factored is not None:
        return DenseForward(factored, *_row_builders(algo, factors, operation, scale, precise=precise))
    if algo == "loha" and "t1" not in factors:
        return HadamardDense(operation, scale) if precise else HalfHadamardDense(operation, scale)
    if algo == "lokr" and "t2" not in factors:
        in_float = KroneckerDense(operation, scale)
        return in_float if precise else HalfKroneckerDense(in_float)
    # Tucker cores are left to autograd: their layers are large.
    has_core = any(name in factors for name in ("t1", "t2", "mid"))
    gradients = None if has_core else lambda values, grad: locon_gradients(values, grad, scale)
    return dense(operation, lambda values: DELTAS[algo](values) * scale, gradients, precise=precise)


def dense(
    operation: LayerOp,
    delta: Callable[[Tensors], Tensor],
    gradients: DeltaGradients | None = None,
    *,
    precise: bool,
) -> Strategy:
    """The dense strategy for any ΔW that is linear in each factor; see `Dense`."""
    return Dense(operation, delta, gradients) if precise else HalfDense(operation, delta, gradients)


def _row_builders(
    algo: str, factors: Tensors, operation: LayerOp, scale: float, *, precise: bool
) -> tuple[AddRows, AddRows, int]:
    """Builders of rows of W + ΔW for the output and for the gradient of x, and what rows come in multiples of."""
    if algo == "lokr":
        rows = len(factors["w1"] if "w1" in factors else factors["w1_a"])
        add_rows, unit = KroneckerDense(operation, scale).add_rows, operation.shape[0] // rows
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

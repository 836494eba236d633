"""Which kernel strategies a layer has, in the order of what they compute.

The count is of multiply-adds and of tensor elements that pass through memory. It names no device: it puts first what is
measured first (`choices`), leaves out what cannot be the fastest or takes too much memory, and decides where nothing
can be measured: on tensors without contents, and where measuring would take too long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from lib_trainer.adapter.delta_weight import Tensors
from lib_trainer.adapter.kernels.autograd import LayerOp
from lib_trainer.adapter.kernels.factored import FactoredDelta, factored_delta

# `dense`: one product with W + ΔW, gradients through that of ΔW. `dense_forward`: the same product, gradients through
# the factored form. `low_rank`: ΔW is never built. `small_batch`: LoHa at a few positions.
StrategyName = Literal["dense", "dense_forward", "low_rank", "small_batch"]
# Added to such a name: products with W in 8 bits.
INT8 = "+int8"
# Factor name -> shape, hashable.
Shapes = tuple[tuple[str, tuple[int, ...]], ...]

# Multiply-adds that a large product does while one element of ΔW is read, added and written. Between 8 and 32 the
# order of strategies on the layers of SD 1.5 hardly changes.
_ELEMENT = 16
# A kernel call takes as long as so many, and each strategy makes about so many of them, forward and backward.
_CALL = 2**20
_CALLS: dict[StrategyName, int] = {"dense": 12, "dense_forward": 18, "low_rank": 26, "small_batch": 20}
# A count this many times the least is not measured, unless the whole layer is so small that only calls count.
_HOPELESS, _SMALL_LAYER = 1.5, 2**30
# `dense` takes up to seven tensors of ΔW's size where it does not build it in tiles: no more elements than SDXL's usual
# layers have, else it would decide what a step takes.
_LARGEST_WHOLE_DELTA = 2**21


@dataclass(frozen=True)
class LayerCase:
    """What decides which strategy of a layer is the fastest.

    Attributes:
        algo: of the adapter.
        shapes: of its factors.
        positions: tokens or pixels of the batch, to the nearest power of two: buckets of one area are one case.
        dtype: of the computation.
        int8: the products with W can be computed in 8 bits.
    """

    algo: str
    shapes: Shapes
    operation: LayerOp
    positions: int
    dtype: torch.dtype
    int8: bool = False

    @classmethod
    def of(cls, algo: str, factors: Tensors, operation: LayerOp, x: Tensor, *, int8: bool = False) -> LayerCase:
        """Of these factors for an input like x."""
        shapes = tuple((name, tuple(factor.shape)) for name, factor in factors.items())
        positions = max(1, x.numel() // (operation.shape[1] * operation.groups))
        return cls(algo, shapes, operation, 2 ** round(math.log2(positions)), x.dtype, int8)

    @property
    def key(self) -> str:
        """All of it in a line of text, for files."""
        shapes = " ".join(f"{name} {_times(shape)}" for name, shape in self.shapes)
        layer, dtype = self.operation, str(self.dtype).removeprefix("torch.")
        how = f"{_times(layer.shape)} stride {_times(layer.stride)} padding {_times(layer.padding)}"
        how += f" dilation {_times(layer.dilation)} groups {layer.groups}"
        return f"{self.algo} {shapes}; {how}; {self.positions} positions; {dtype}{' int8' * self.int8}"

    @property
    def factored(self) -> FactoredDelta | None:
        """ΔW in factored form; None where it has none."""
        return factored_delta(self.algo, self._factors, self.operation, 1.0)

    @property
    def rank(self) -> int:
        """Of LoHa; 0 for others."""
        return dict(self.shapes)["w1_b"][0] if self.algo == "loha" else 0

    @property
    def in_tiles(self) -> bool:
        """Whether `dense` builds ΔW some rows at a time."""
        return self.algo == "loha" and not self.operation.is_conv

    @property
    def _factors(self) -> dict[str, Tensor]:
        return {name: torch.empty(shape, device="meta") for name, shape in self.shapes}

    def counts(self) -> dict[StrategyName, float]:
        """What each strategy computes besides the two products with W that all of them have, in multiply-adds."""
        factored, elements = self.factored, math.prod(self.operation.shape)
        positions = max(1, self.positions // math.prod(self.operation.stride))
        build = elements * (_ELEMENT + 2 * self.rank)
        # ΔW is built forward and backward; then the gradients of both halves.
        found: dict[StrategyName, float] = {"dense": positions * elements + 4 * build}
        if self.in_tiles and self.positions * self.rank * sum(self.operation.shape) < elements:
            # r² values at each position take fewer multiply-adds than building ΔW.
            found["small_batch"] = 4.0 * self.positions * self.rank * sum(self.operation.shape)
        if factored is not None:
            weights = factored.weights(self._factors)
            # A LoHa of high rank has r² products, which can be as large as ΔW.
            if sum(weight.numel() for weight in weights) < elements:
                product = positions * factored.multiply_adds(weights)
                # Forward, its recomputation, and the gradients of weights and input.
                found["low_rank"] = 4 * product
                found["dense_forward"] = 3 * product + 2 * build
        return {name: count + _CALL * _CALLS[name] for name, count in found.items()}


@lru_cache(maxsize=4096)
def candidates(case: LayerCase) -> tuple[StrategyName, ...]:
    """The strategies that may be the fastest for a layer, the one that computes least first."""
    counts, elements = case.counts(), math.prod(case.operation.shape)
    if len(counts) > 1 and not case.in_tiles and elements > _LARGEST_WHOLE_DELTA:
        del counts["dense"]
    products = 2.0 * elements * max(1, case.positions // math.prod(case.operation.stride))
    most = max(_HOPELESS * (products + min(counts.values())), _SMALL_LAYER)
    return tuple(name for name in sorted(counts, key=counts.__getitem__) if products + counts[name] < most)


def pinned(name: str, case: LayerCase) -> StrategyName:
    """The strategy of this name; for a layer that has none of it, the one that computes least."""
    return next((found for found in case.counts() if found == name), candidates(case)[0])


def _times(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))

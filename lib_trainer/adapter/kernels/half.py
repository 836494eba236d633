"""What half precision needs: factors that fit its range, and W + ΔW rounded without bias.

The nearest half-precision value of W + ΔW is W itself while ΔW is young: bfloat16 keeps eight bits. Stochastic rounding
gives W + ΔW on average over a row, so that one product with it stands for W·x + ΔW·x (Gupta et al., "Deep Learning with
Limited Numerical Precision", 2015). The random bits are the same at every call: gradient checkpointing, which runs a
layer twice, and a resumed run compute the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from lib_trainer.adapter.delta_weight import Tensors

# Rows of W (…, in·k²), the factors, which rows -> those rows of W + ΔW.
AddRows = Callable[[Tensor, Tensors, slice], Tensor]
# Float32 bits that the dtype has no room for.
_LOST_BITS = {torch.bfloat16: 16, torch.float16: 13}
_NOISE_VALUES = 2**20
# Of the noise that every layer in half precision reads, once for the whole model.
NOISE_BYTES = 4 * _NOISE_VALUES
# Each row of a weight reads the same noise this much further on.
_ROW_STEP = 61


@dataclass(frozen=True)
class HalfFactors:
    """The factors in half precision.

    Attributes:
        tensors: by factor name.
        sizes: by factor name, 0-d float32: what the factor was divided by; empty for bfloat16, which has the range of
            float32. A young LoHa's values would be zero in float16.
    """

    tensors: dict[str, Tensor]
    sizes: dict[str, Tensor]

    def add_to(self, total: Tensor, delta: Tensor, scale: float) -> Tensor:
        """total += scale·ΔW in float32, where `delta` is ΔW of `tensors`."""
        if not self.sizes:
            return total.add_(delta, alpha=scale)
        return total.addcmul_(delta, self._product(), value=scale)

    def nearest(self, weight: Tensor, first: Tensor, second: Tensor, scale: float) -> Tensor:
        """weight + scale·ΔW for ΔW = first ∘ second of `tensors`, rounded to the nearest: one pass where it can be."""
        if not self.sizes:
            return torch.addcmul(weight, first, second, value=scale)
        return torch.addcmul(weight, first * second, self._product().to(weight.dtype), value=scale)

    def gradient(self, name: str, grad: Tensor) -> Tensor:
        """The gradient of a factor, float32, from that of its tensor here."""
        grad = grad.float()
        # ΔW is linear in each factor, so the other sizes are what is missing.
        return grad * (self._product() / self.sizes[name]) if self.sizes else grad

    def _product(self) -> Tensor:
        return torch.stack(list(self.sizes.values())).prod()


def half_factors(factors: Tensors, dtype: torch.dtype) -> HalfFactors:
    """Copies of the factors in `dtype`; divided by their largest value for float16."""
    if dtype != torch.float16:
        return HalfFactors({name: factor.to(dtype) for name, factor in factors.items()}, {})
    # Tensors, not numbers: reading one would wait for the GPU. A factor of zeros is divided by something, too.
    sizes = {name: factor.detach().abs().amax().clamp_min(1e-30) for name, factor in factors.items()}
    return HalfFactors({name: (factor / sizes[name]).to(dtype) for name, factor in factors.items()}, sizes)


def round_stochastically(total: Tensor, dtype: torch.dtype, first_row: int = 0) -> Tensor:
    """`total` (rows, columns), contiguous float32, in half precision; overwrites it.

    Each value goes to one of its two neighbours, with chances that make its mean exact.

    Args:
        first_row: row number of the first row in its weight: tiles and the whole get the same noise.
    """
    rows, columns = total.shape
    noise = _noise(total.device, _LOST_BITS[dtype])
    step = min(_ROW_STEP, (len(noise) - columns) // max(rows, 1))
    start = first_row * step % (len(noise) - columns - (rows - 1) * step)
    # On the bits, where one unit is the same for every value: up to one unit more, then cut. Zero stays zero.
    bits = total.view(torch.int32).add_(noise.as_strided((rows, columns), (step, 1), start))
    bits.bitwise_and_(-(2 ** _LOST_BITS[dtype]))
    return total.to(dtype)


def in_half(add_rows: AddRows) -> AddRows:
    """The same rows of W + ΔW for a weight in half precision, added in float32 and rounded stochastically."""

    def rounded(weight: Tensor, factors: Tensors, rows: slice) -> Tensor:
        return round_stochastically(add_rows(weight.float(), factors, rows), weight.dtype, rows.start)

    return rounded


def nearest_in_half(add_rows: AddRows) -> AddRows:
    """The same rows of W + ΔW for a weight in half precision, rounded to the nearest.

    For the gradient of x, where losing a young ΔW does no more harm than W's own rounding.
    """

    def rounded(weight: Tensor, factors: Tensors, rows: slice) -> Tensor:
        return add_rows(weight, {name: factor.to(weight.dtype) for name, factor in factors.items()}, rows)

    return rounded


def add_delta_in_half(
    delta: Callable[[Tensors], Tensor], scale: float, weight: Tensor, factors: Tensors, rows: slice
) -> Tensor:
    """All rows of W + scale·ΔW for a weight (out, in·k²) in half precision; ΔW too is built in it."""
    half = half_factors(factors, weight.dtype)
    total = weight.float()
    half.add_to(total, delta(half.tensors).reshape(total.shape), scale)
    return round_stochastically(total, weight.dtype, rows.start)


@lru_cache(maxsize=16)
def _noise(device: torch.device, bits: int) -> Tensor:
    """Integers of so many bits, always the same."""
    # Kept beyond the call, so it must have contents, and not count as the first layer's memory.
    with _disable_current_modes(), torch.inference_mode(False):
        drawn = torch.Generator().manual_seed(0)
        return torch.randint(2**bits, (_NOISE_VALUES,), generator=drawn, dtype=torch.int32).to(device)

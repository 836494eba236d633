"""Which way an adapted layer computes: read from a table of measurements, or counted where there is none.

`python -m benchmarks ways` measures every way on the shapes of SD 1.5 and SDXL and writes `ways.json`.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lib_trainer.adapter.delta_weight import DELTAS, Tensors, lokr_first, lokr_second
from lib_trainer.adapter.kernels.autograd import Form, LayerOp
from lib_trainer.adapter.kernels.factored import chain_of
from lib_trainer.adapter.kernels.loha import Few, Hadamard
from lib_trainer.adapter.kernels.strategies import AddRows, Chained, Factored, Whole

# `whole`: one product with W + ΔW, gradients through that of ΔW. `factored`: the same product, gradients through the
# chain. `chained`: ΔW is never built. In half precision there is no `factored`, and `whole` keeps ΔW's product apart.
# `few`: LoHa at so few places, a time embedding's, that nothing need be measured.
Way = Literal["whole", "factored", "chained", "few"]
MEASURED: tuple[Way, ...] = ("whole", "factored", "chained")
TABLE = Path(__file__).with_name("ways.json")
# Factor name -> shape, as something that can be looked up by.
Shapes = tuple[tuple[str, tuple[int, ...]], ...]
# Where nothing is measured: multiply-adds of a large product that one of a small product takes, and one number that is
# built or added.
_SMALL_PRODUCT_COST = 1.5
_NUMBER_COST = 6


@dataclass(frozen=True)
class Spot:
    """What the fastest way depends on, and how it is found in the table.

    Attributes:
        kind: only like layers are compared: `loha linear`, `lokr conv`.
        out, inner: sides of the weight, the kernel counted to the inner one.
        share: multiply-adds of the chain for one of the layer itself.
        places: tokens, or pixels that come out, of the whole batch.
    """

    kind: str
    out: int
    inner: int
    share: float
    places: int

    def distance(self, other: Spot) -> float:
        """How many doublings apart two spots of a kind lie."""
        mine = (self.out, self.inner, self.share, self.places)
        theirs = (other.out, other.inner, other.share, other.places)
        return sum(abs(math.log2(a / b)) for a, b in zip(mine, theirs, strict=True))


def way_for(
    algo: str, factors: Tensors, operation: LayerOp, x_shape: tuple[int, ...], device: str, *, precise: bool
) -> Way:
    """The fastest way for a layer and an input of this shape.

    Args:
        factors: only their names and shapes are looked at.
        device: the kind of device it runs on.
        precise: the compute dtype is that of the factors.
    """
    return _way_for(algo, shapes_of(factors), operation, x_shape, device, precise)


def shapes_of(factors: Tensors) -> Shapes:
    return tuple((name, tuple(factor.shape)) for name, factor in factors.items())


@lru_cache(maxsize=4096)
def _way_for(
    algo: str, shapes: Shapes, operation: LayerOp, x_shape: tuple[int, ...], device: str, precise: bool
) -> Way:
    if _are_few(algo, dict(shapes), operation, math.prod(x_shape[:-1])):
        return "few"
    spot = spot_of(algo, shapes, operation, x_shape)
    if spot is None:
        return "whole"
    table = _table().get(table_key(device, precise=precise), [])
    rows = [(row.distance(spot), way) for row, way in table if row.kind == spot.kind]
    return min(rows)[1] if rows else _counted(algo, shapes, spot, precise=precise)


def _are_few(algo: str, shapes: dict[str, tuple[int, ...]], operation: LayerOp, places: int) -> bool:
    """Whether LoHa's r² numbers of each place take fewer multiply-adds than building ΔW."""
    if algo != "loha" or operation.is_conv:
        return False
    out, inner = operation.shape
    return places * shapes["w1_b"][0] * (out + inner) < out * inner


def spot_of(algo: str, shapes: Shapes, operation: LayerOp, x_shape: tuple[int, ...]) -> Spot | None:
    """Where a layer stands; None where the chain is no way for it, being as large as ΔW."""
    factors = {name: torch.empty(shape, device="meta") for name, shape in shapes}
    chain = chain_of(algo, factors, operation, 1.0)
    if chain is None:
        return None
    weights = chain.weights(factors)
    out, inner = operation.shape[0], math.prod(operation.shape[1:])
    if sum(weight.numel() for weight in weights) >= out * inner:
        return None
    places = math.prod(x_shape) // operation.shape[1] // math.prod(operation.stride)
    kind = f"{algo} {'linear' if operation.is_pointwise else 'conv'}"
    return Spot(kind, out, inner, chain.multiply_adds(weights) / (out * inner), max(1, places))


def _counted(algo: str, shapes: Shapes, spot: Spot, *, precise: bool) -> Way:
    """The way with the fewest multiply-adds, for a device on which nothing was measured."""
    rank = dict(shapes)["w1_b"][0] if algo == "loha" else 0
    building = 2 * rank + _NUMBER_COST
    step = spot.share * spot.places * _SMALL_PRODUCT_COST
    costs: dict[Way, float] = {
        # The gradient of ΔW, and in half precision ΔW's own product; LoHa's gradients take six small products more.
        "whole": spot.places * (1 if precise else 2) + 2 * building + 4 * rank,
        "chained": 4 * step,
    }
    if precise:
        costs["factored"] = 3 * step + 2 * building
    return min(costs, key=costs.__getitem__)


@lru_cache(maxsize=1)
def _table() -> dict[str, list[tuple[Spot, Way]]]:
    """`table_key` -> what was measured there."""
    stored = json.loads(TABLE.read_text("utf-8"))
    return {key: [(Spot(*row[:-1]), row[-1]) for row in measured["rows"]] for key, measured in stored.items()}


def table_key(device: str, *, precise: bool) -> str:
    """Under which name `ways.json` has what was measured: `cpu`, `cuda`, `cuda half`."""
    return device if precise else f"{device} half"


def measured_ways(precise: bool) -> tuple[Way, ...]:
    """The ways among which measurements choose."""
    return MEASURED if precise else ("whole", "chained")


def form_of(way: Way, algo: str, factors: Tensors, operation: LayerOp, scale: float, *, precise: bool) -> Form:
    """The way, made ready for one layer.

    Args:
        scale: ΔW is multiplied by it.
    """
    if way == "few":
        return Few(operation, scale)
    chain = None if way == "whole" else chain_of(algo, factors, operation, scale)
    if chain is not None and (way == "chained" or not precise):
        return Chained(chain)
    if chain is not None:
        return Factored(chain, *_add_rows(algo, factors, operation, scale))
    if algo == "loha" and "t1" not in factors:
        return Hadamard(operation, scale, apart=not precise)
    return Whole(operation, lambda values: DELTAS[algo](values) * scale, apart=not precise)


def _add_rows(algo: str, factors: Tensors, operation: LayerOp, scale: float) -> tuple[AddRows, int]:
    """How rows of W + ΔW are built, and what they come in multiples of."""
    if algo == "lokr":
        rows = len(factors["w1"] if "w1" in factors else factors["w1_a"])
        return partial(_add_lokr, scale), operation.shape[0] // rows
    if algo == "loha" and "t1" not in factors:
        return Hadamard(operation, scale).rows, 1
    return lambda weight, f, _rows: weight.add(DELTAS[algo](f).flatten(1), alpha=scale), operation.shape[0]


def _add_lokr(scale: float, weight: Tensor, f: Tensors, rows: slice) -> Tensor:
    second = lokr_second(f).flatten(1)
    out, inner = second.shape
    first = lokr_first(f)[rows.start // out : rows.stop // out]
    parts = weight.reshape(len(first), out, first.shape[1], inner)
    return torch.addcmul(parts, first[:, None, :, None], second[:, None, :], value=scale).flatten(2).flatten(0, 1)

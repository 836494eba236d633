"""(a) The adapted layers alone, forward and backward, over the shapes of a UNet."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.cases import ADAPTERS, OURS, Compute, Implementation, family_of
from benchmarks.pairs import Ratios, joined, paired, weighted
from benchmarks.processes import Worker, workers
from benchmarks.report import say, table
from benchmarks.shapes import Shape, shapes_of

_LEAST_S = 0.1


@dataclass(frozen=True)
class Comparison:
    """One baseline on one shape, which occurs `count` times."""

    shape: Shape
    count: int
    baseline: Implementation
    ratios: Ratios


def compare_layers(
    family: str,
    size_px: int,
    adapter: str,
    baselines: Sequence[Implementation],
    rounds: int,
    folder: Path,
    threads: int,
    heaviest: int,
    compute: Compute,
) -> list[Comparison]:
    """Every shape of the family's UNet against every baseline, in pairs; the `heaviest` if it is not 0."""
    shapes = heaviest_first(family, size_px)[: heaviest or None]
    with workers([OURS, *baselines], folder, threads) as (ours, *others):
        return compare_shapes(ours, others, shapes, adapter, rounds, compute)


def compare_shapes(
    ours: Worker,
    others: Sequence[Worker],
    shapes: Sequence[tuple[Shape, int]],
    adapter: str,
    rounds: int,
    compute: Compute,
) -> list[Comparison]:
    """Each of these (shape, how often it occurs) against everybody, in pairs."""
    found: list[Comparison] = []
    for number, (shape, count) in enumerate(shapes, start=1):
        for other in others:
            ratios = layer_ratios(ours, other, shape, asdict(ADAPTERS[adapter]), rounds, compute)
            found.append(Comparison(shape, count, other.implementation, ratios))
        newest = " · ".join(f"{item.baseline.name} {item.ratios}" for item in found[-len(others) :])
        say(f"{number}/{len(shapes)} {adapter} {shape} ×{count}: {newest}", progress=True)
    return found


def heaviest_first(family: str, size_px: int) -> list[tuple[Shape, int]]:
    """Shapes and how often each occurs, those with the most multiply-adds first."""
    shapes = shapes_of(family_of(family), size_px).items()
    return sorted(shapes, key=lambda item: -item[0].multiply_adds * item[1])


def report_layers(adapter: str, family: str, size_px: int, found: Sequence[Comparison]) -> None:
    """A line per baseline: all layers, weighted by occurrence, and the slowest comparison of a single shape."""
    say(f"\n{adapter}, the adapted layers of {family_of(family).label} at {size_px} px, forward and backward")
    everything = heaviest_first(family, size_px)
    measured = {item.shape for item in found}
    share = sum(shape.multiply_adds * count for shape, count in everything if shape in measured)
    share /= sum(shape.multiply_adds * count for shape, count in everything)
    say(f"({len(measured)} of {len(everything)} shapes, {share:.1%} of their multiply-adds)\n")
    rows = []
    for baseline in dict.fromkeys(item.baseline for item in found):
        mine = [item for item in found if item.baseline == baseline]
        every = weighted([(item.count, item.ratios) for item in mine])
        worst = min(mine, key=lambda item: item.ratios.median)
        least = f"{worst.ratios} at {worst.shape}"
        rows.append([baseline.name, str(every), f"{every.ours_s:.2f}", f"{every.theirs_s:.2f}", least])
    say(table(["beside ours", "times as long", "ours, s", "theirs, s", "least of any shape"], rows))


def _loaded(worker: Worker, shape: Shape, adapter: dict[str, Any], compute: Compute) -> AbstractContextManager[None]:
    operation = asdict(shape.operation)
    return worker.loaded(
        load="layer", operation=operation, x_shape=shape.x_shape, adapter=adapter, compute=asdict(compute)
    )


def layer_ratios(
    ours: Worker, other: Worker, shape: Shape, adapter: dict[str, Any], rounds: int, compute: Compute
) -> Ratios:
    """A pair of timings in each round, in new processes: where in memory a layer happens to lie counts too.

    Args:
        adapter: fields of an `AdapterConfig`.
    """
    pairs = []
    for _ in range(rounds):
        with _loaded(ours, shape, adapter, compute), _loaded(other, shape, adapter, compute):
            pairs.append(
                paired(
                    lambda repeats: ours.ask(time=repeats),
                    lambda repeats: other.ask(time=repeats),
                    rounds=1,
                    least_s=_LEAST_S,
                )
            )
    return joined(pairs)

"""Measures every way through an adapted layer, and writes the table that training chooses by."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cases import ADAPTERS, Compute
from benchmarks.makers import make_lively, plain_layer
from benchmarks.pairs import seconds_of
from benchmarks.report import say, where_and_when
from benchmarks.shapes import Shape
from benchmarks.shapes import shapes_of as unet_shapes
from lib_trainer.adapter.kernels.autograd import applied
from lib_trainer.adapter.kernels.dispatch import TABLE, Spot, Way, form_of, measured_ways, shapes_of, spot_of, table_key
from lib_trainer.adapter.modules import AdapterModule, new_module
from lib_trainer.models.families import SD1, SDXL

# Two sizes of each family, so that the number of places varies for every weight.
_UNETS = ((SD1, 512), (SD1, 256), (SDXL, 1024), (SDXL, 512))
# Larger layers are left to their nearest neighbour in the table, which costs minutes less.
_MOST_MULTIPLY_ADDS = 16e9
_LEAST_S = 0.02


def measure_ways(compute: Compute, rounds: int, threads: int) -> None:
    """Writes the rows of `compute` into `ways.json`; all others stay."""
    torch.set_num_threads(threads)
    stored = json.loads(TABLE.read_text("utf-8")) if TABLE.is_file() else {}
    rows: dict[Spot, Way] = {}
    for adapter, shape in _layers():
        factors = new_module("layer", shape.operation, ADAPTERS[adapter])
        spot = spot_of(factors.algo, shapes_of(factors.tensors), shape.operation, shape.x_shape)
        if spot is None or spot in rows:
            continue
        seconds = _seconds_of_ways(factors.to(compute.device), shape, compute, rounds)
        rows[spot] = min(seconds, key=seconds.__getitem__)
        say(f"{adapter} {shape}: {' '.join(f'{way} {1e3 * s:.2f} ms' for way, s in seconds.items())}", progress=True)
    key = table_key(compute.device, precise=_is_precise(compute))
    stored[key] = {
        "measured": f"{compute.dtype} · {where_and_when(threads)}",
        "rows": [_as_row(spot, way) for spot, way in rows.items()],
    }
    write_table(TABLE, stored)


def write_table(path: Path, stored: dict[str, dict]) -> None:
    """One row a line, so that a change can be read."""
    parts = []
    for device, found in stored.items():
        lines = ",\n".join(f"      {json.dumps(row)}" for row in found["rows"])
        measured = json.dumps(found["measured"], ensure_ascii=False)
        parts.append(f'  "{device}": {{\n    "measured": {measured},\n    "rows": [\n{lines}\n    ]\n  }}')
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", "utf-8")


def _layers() -> Iterator[tuple[str, Shape]]:
    for family, size_px in _UNETS:
        for shape in unet_shapes(family, size_px):
            if shape.multiply_adds <= _MOST_MULTIPLY_ADDS:
                for adapter in ADAPTERS:
                    yield adapter, shape


def _is_precise(compute: Compute) -> bool:
    return compute.torch_dtype == torch.float32


def _seconds_of_ways(factors: AdapterModule, shape: Shape, compute: Compute, rounds: int) -> dict[Way, float]:
    """The ways take turns; each one's median, relative to the first of its round, times the shortest first."""
    make_lively(factors.tensors)
    layer = plain_layer(shape.operation).to(compute.device, compute.torch_dtype)
    precise = _is_precise(compute)
    runs = {way: _run(way, factors, layer.weight, layer.bias, shape, precise=precise) for way in measured_ways(precise)}
    for run in runs.values():
        run()
    repeats = max(1, round(_LEAST_S / seconds_of(runs["whole"], 1)))
    turns = [{way: seconds_of(run, repeats) / repeats for way, run in runs.items()} for _ in range(rounds)]
    shortest = min(turn["whole"] for turn in turns)
    return {way: shortest * statistics.median(turn[way] / turn["whole"] for turn in turns) for way in runs}


def _run(
    way: Way, factors: AdapterModule, weight: Tensor, bias: Tensor | None, shape: Shape, *, precise: bool
) -> Callable[[], None]:
    x = torch.randn(shape.x_shape).to(weight).requires_grad_()
    form = form_of(way, factors.algo, factors.tensors, shape.operation, factors.scale, precise=precise)
    parameters = list(factors.parameters())

    def run() -> None:
        y = applied(form, lambda like: (weight, bias), x, factors.tensors)
        torch.autograd.grad(y, [x, *parameters], torch.ones_like(y))

    return run


def _as_row(spot: Spot, way: Way) -> list:
    return [spot.kind, spot.out, spot.inner, round(spot.share, 5), spot.places, way]

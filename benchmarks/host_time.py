"""What Python costs for each adapted layer: forward and backward of layers so small that nothing else counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.cases import ADAPTERS, OURS, Compute, Implementation
from benchmarks.layers import Comparison, layer_ratios
from benchmarks.processes import workers
from benchmarks.report import say, table
from benchmarks.shapes import Shape
from lib_trainer.adapter.kernels.autograd import LayerOp

_CHANNELS = 16
SHAPES = (
    Shape(LayerOp((_CHANNELS, _CHANNELS)), (1, 4, _CHANNELS)),
    Shape(LayerOp((_CHANNELS, _CHANNELS, 3, 3), padding=(1, 1)), (1, _CHANNELS, 2, 2)),
)


def compare_host_time(
    adapter: str, others: Sequence[Implementation], rounds: int, folder: Path, threads: int
) -> list[Comparison]:
    """Each tiny layer beside each of `others`, in pairs."""
    found = []
    # Rank 64 on 16 channels would be another LoKr than that of large layers.
    config = {**asdict(ADAPTERS[adapter]), "network_dim": 2, "conv_dim": 2}
    with workers([OURS, *others], folder, threads) as (ours, *peers):
        for shape in SHAPES:
            for peer in peers:
                ratios = layer_ratios(ours, peer, shape, config, rounds, Compute())
                found.append(Comparison(shape, 1, peer.implementation, ratios))
    return found


def report_host_time(adapter: str, found: Sequence[Comparison]) -> None:
    """Microseconds of both sides, and how many times as long the other takes."""
    say(f"\n{adapter}, forward and backward of one tiny layer\n")
    rows = [
        [
            str(item.shape),
            item.baseline.name,
            f"{item.ratios.ours_s * 1e6:.0f}",
            f"{item.ratios.theirs_s * 1e6:.0f}",
            str(item.ratios),
        ]
        for item in found
    ]
    say(table(["layer", "beside ours", "ours, µs", "theirs, µs", "times as long"], rows))

"""Layers and whole steps beside everybody, and the page that shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cases import BASELINES, FROZEN, OURS, SMALL, Compute, Implementation, family_of
from benchmarks.layers import Comparison as OfLayer
from benchmarks.layers import compare_shapes, heaviest_first
from benchmarks.pairs import weighted
from benchmarks.processes import Worker, workers
from benchmarks.report import table
from benchmarks.training import ENDED, Setting, Side, compare_whole_steps
from benchmarks.training import Comparison as OfStep

BEGIN, END = "<!-- Measured {part} begin. -->", "<!-- Measured {part} end. -->"
_ADAPTERS = ("lokr", "loha")


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how often.

    Attributes:
        layers, steps: (family, side of the pictures in px).
        heaviest: so many shapes of layers; 0 for all.
        rounds: pairs of each comparison.
    """

    layers: tuple[str, int]
    heaviest: int
    steps: tuple[str, int]
    rounds: int


FULL = Sizes(("sdxl", 1024), 0, ("sd1", 512), 3)
QUICK = Sizes((SMALL, 256), 1, (SMALL, 128), 2)


def measure_speed(
    parts: Sequence[str], sizes: Sizes, baselines: Sequence[Implementation], folder: Path, threads: int
) -> Iterator[tuple[str, str]]:
    """(part, its Markdown), each as it is measured: layers, and whole steps without and with gradient checkpointing, in
    what this machine computes fastest."""
    compute = Compute.of_this_machine()
    how = f"Computed in {compute.dtype} on {compute.device}{_why(compute)}; pairs of each comparison: {sizes.rounds}."
    if missing := [item.name for item in BASELINES if item not in baselines]:
        how += f" Not measured this time: {', '.join(missing)}."
    # Every process imports its packages once, for all that it measures.
    with workers([OURS, FROZEN, *baselines], folder, threads) as (ours, frozen, *others):
        for part in parts:
            if part == "layers":
                figures = _layers(sizes, compute, ours, others)
            else:
                figures = _steps(sizes, compute, ours, [frozen, *others], checkpointing=part == "checkpointed-steps")
            yield part, f"{how} {figures}"


def write_page(page: Path, part: str, where: str, command: str, figures: str) -> None:
    """Replaces one part's figures on the page. Raises ValueError for a page without a place for them."""
    text, begin, end = page.read_text("utf-8"), BEGIN.format(part=part), END.format(part=part)
    if begin not in text or end not in text:
        raise ValueError(f"{page} has no place for the figures of {part}")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n\n`{command}`: {where}. {figures}\n\n{end}{after}", "utf-8")


def _why(compute: Compute) -> str:
    return "" if compute.dtype != "float32" else ", whose half precision is no faster"


def _layers(sizes: Sizes, compute: Compute, ours: Worker, others: Sequence[Worker]) -> str:
    """How many times longer than ours each takes for all layers, and on the shape where it comes closest."""
    family, size_px = sizes.layers
    every = heaviest_first(family, size_px)
    shapes = every[: sizes.heaviest or None]
    found = {a: compare_shapes(ours, others, shapes, a, sizes.rounds, compute) for a in _ADAPTERS}
    which = f"the {len(shapes)} heaviest of {len(every)} shapes" if sizes.heaviest else f"all {len(every)} shapes"
    names = [other.implementation for other in others]
    rows = [[item.name, *(cell for a in _ADAPTERS for cell in _of_layers(found[a], item))] for item in names]
    head = ["beside ours", *(cell for a in _ADAPTERS for cell in (a, "least of any shape"))]
    title = f"adapted layers of {family_of(family).label} at {size_px} px, {which}, forward and backward"
    return f"How many times as long as ours they take, {title}:\n\n{table(head, rows)}"


def _of_layers(found: Sequence[OfLayer], baseline: Implementation) -> list[str]:
    mine = [item for item in found if item.baseline == baseline]
    worst = min(mine, key=lambda item: item.ratios.median)
    return [str(weighted([(item.count, item.ratios) for item in mine])), f"{worst.ratios} at {worst.shape}"]


def _steps(sizes: Sizes, compute: Compute, ours: Worker, others: Sequence[Worker], *, checkpointing: bool) -> str:
    """How many times as long as ours a step of each takes, and how many MiB it makes."""
    family, size_px = sizes.steps
    found: dict[str, tuple[Side, list[OfStep]]] = {}
    for adapter in _ADAPTERS:
        setting = Setting(family, size_px, 1, adapter, checkpointing, compute)
        found[adapter] = compare_whole_steps(ours, others, setting, sizes.rounds, losses=1)
    first = ["ours", *(cell for a in _ADAPTERS for cell in ("1", _mebibytes(found[a][0].peak_bytes)))]
    beside = zip(*(found[a][1] for a in _ADAPTERS), strict=True)
    rows = [[items[0].baseline.name, *(cell for item in items for cell in _of_step(item))] for items in beside]
    head = ["a step beside ours", *(cell for a in _ADAPTERS for cell in (a, "peak, MiB"))]
    how = "with" if checkpointing else "without"
    ours_s = {a: min(item.ratios.ours_s for item in found[a][1] if item.ratios) for a in _ADAPTERS}
    seconds = ", ".join(f"{a} {ours_s[a]:.2f} s" for a in _ADAPTERS)
    title = f"whole steps of {family_of(family).label} at {size_px} px, batch 1, {how} gradient checkpointing"
    return f"How many times as long as ours they take, {title}; ours take {seconds}:\n\n{table(head, [first, *rows])}"


def _of_step(item: OfStep) -> list[str]:
    return [str(item.ratios or ENDED), _mebibytes(item.side.peak_bytes) if item.side else ""]


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.0f}"

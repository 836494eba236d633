"""How the time of a step grows with batch, tokens, rank and layers; and a plot of it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from benchmarks.cases import ADAPTERS, FROZEN, OURS, Compute
from benchmarks.loads import LayerLoad
from benchmarks.report import say, table
from lib_trainer.adapter.kernels.autograd import LayerOp

_WIDTH = 640
_DEFAULTS = {"batch": 1, "tokens": 1024, "rank": 16, "layers": 1}
_VALUES = {
    "batch": (1, 2, 4, 8),
    "tokens": (128, 256, 512, 1024, 2048, 4096),
    "rank": (4, 8, 16, 32, 64),
    "layers": (1, 2, 4, 8),
}
_ROUNDS = 3
_PANEL_PX = (300, 220)
_MARGIN_PX = 44
_COLOURS = {"loha": "#c0392b", "lokr": "#2471a3", "frozen": "#7f8c8d"}


@dataclass(frozen=True)
class Growth:
    """Seconds of forward and backward at each value of one variable, all others at their defaults."""

    variable: str
    who: str
    values: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def slope(self) -> float:
        """Exponent of the growth between the first value and the last: 1 where it is proportional."""
        return math.log(self.seconds[-1] / self.seconds[0]) / math.log(self.values[-1] / self.values[0])


def measure_growth(threads: int) -> list[Growth]:
    """Ours with LoHa and LoKr, and the frozen layer, on square linear layers."""
    torch.set_num_threads(threads)
    found = []
    for variable, values in _VALUES.items():
        for who in _COLOURS:
            seconds = tuple(_seconds(who, {**_DEFAULTS, variable: value}) for value in values)
            found.append(Growth(variable, who, values, seconds))
    return found


def report_growth(found: Sequence[Growth]) -> None:
    say(f"\nForward and backward of {_WIDTH}×{_WIDTH} linear layers in ms; else {_DEFAULTS}\n")
    rows = []
    for item in found:
        shown = " · ".join(f"{value}: {1e3 * s:.1f}" for value, s in zip(item.values, item.seconds, strict=True))
        rows.append([item.variable, item.who, shown, f"{item.slope:.2f}"])
    say(table(["grows with", "", "ms", "exponent"], rows))


def plot_growth(found: Sequence[Growth], path: Path) -> None:
    """One panel a variable, both axes logarithmic."""
    variables = list(dict.fromkeys(item.variable for item in found))
    width, height = _PANEL_PX
    picture = Image.new("RGB", (width * len(variables), height), "white")
    for number, variable in enumerate(variables):
        panel = [item for item in found if item.variable == variable]
        _draw_panel(ImageDraw.Draw(picture), number * width, panel)
    picture.save(path, optimize=True)


def _draw_panel(draw: ImageDraw.ImageDraw, left: int, panel: Sequence[Growth]) -> None:
    width, height = _PANEL_PX
    values = panel[0].values
    low, high = min(min(item.seconds) for item in panel), max(max(item.seconds) for item in panel)

    def position(value: int, seconds: float) -> tuple[float, float]:
        across = math.log(value / values[0]) / math.log(values[-1] / values[0])
        up = math.log(seconds / low) / math.log(high / low)
        return left + _MARGIN_PX + across * (width - 2 * _MARGIN_PX), height - _MARGIN_PX - up * (
            height - 2 * _MARGIN_PX
        )

    for value in values:
        x, y = position(value, low)
        draw.text((x, y + 6), str(value), fill="black", anchor="ma")
        draw.line([(x, y), (x, y + 4)], fill="black")
    for seconds in (low, high):
        draw.text(
            (left + _MARGIN_PX - 6, position(values[0], seconds)[1]), f"{1e3 * seconds:.3g}", fill="black", anchor="rm"
        )
    draw.text((left + width / 2, height - 12), f"{panel[0].variable}, ms a step", fill="black", anchor="mm")
    for number, item in enumerate(panel):
        points = [position(value, seconds) for value, seconds in zip(item.values, item.seconds, strict=True)]
        draw.line(points, fill=_COLOURS[item.who], width=2)
        draw.text((left + _MARGIN_PX + 60 * number, 14), item.who, fill=_COLOURS[item.who])


def _seconds(who: str, setting: dict[str, int]) -> float:
    """The shortest of a few runs."""
    name = "lokr" if who == "frozen" else who
    adapter = replace(ADAPTERS[name], network_dim=setting["rank"])
    task = {
        "operation": asdict(LayerOp((_WIDTH, _WIDTH))),
        "adapter": asdict(adapter),
        "x_shape": [setting["batch"], setting["tokens"], _WIDTH],
        "compute": asdict(Compute()),
    }
    loads = [LayerLoad(FROZEN if who == "frozen" else OURS, task) for _ in range(setting["layers"])]
    times = []
    for _ in range(_ROUNDS + 1):
        started = time.process_time()
        for load in loads:
            load.run()
        times.append(time.process_time() - started)
    return min(times[1:])

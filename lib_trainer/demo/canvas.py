"""A drawing surface in unit coordinates, and the pens that decide how an area is painted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

# Drawn this many times larger and scaled down, so that edges are smooth.
SUPERSAMPLE = 4


@dataclass(frozen=True)
class Pen:
    """How areas are painted.

    Attributes:
        outline: colour of the line around every area, or None for no line.
        fill: colour that replaces every area's own; None keeps it.
        tones: from dark to light; with any, an area takes the tone nearest to its own brightness.
        hatch: colour of diagonal stripes laid over every area, or None.
        line_width: of outlines, as a share of the picture's side.
        hatch_period: distance between stripes, as a share of the picture's side.
    """

    outline: Colour | None = None
    fill: Colour | None = None
    tones: tuple[Colour, ...] = ()
    hatch: Colour | None = None
    line_width: float = 0.025
    hatch_period: float = 0.12


FLAT = Pen()


@dataclass
class Canvas:
    """A square picture; areas are given in local coordinates −1…1 that `place` moves, rotates and scales."""

    size_px: int
    background: Colour
    pen: Pen = FLAT
    _image: Image.Image = field(init=False, repr=False)
    _centre: Point = field(init=False, default=(0.5, 0.5))
    _scale: float = field(init=False, default=0.5)
    _angle: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        side = self.size_px * SUPERSAMPLE
        self._image = Image.new("RGB", (side, side), self.background)

    def place(self, centre: Point, scale: float, angle_degrees: float = 0.0) -> None:
        """From here on local (0, 0) lies at `centre` (share of the picture), and 1 is `scale` of the picture long."""
        self._centre, self._scale, self._angle = centre, scale, math.radians(angle_degrees)

    def polygon(self, points: Iterable[Point], colour: Colour) -> None:
        """Paint the area inside `points` the way the pen does."""
        corners = [self._to_pixels(point) for point in points]
        self._paint(corners, colour)
        if self.pen.outline is not None:
            width = max(1, round(self.pen.line_width * self._image.width))
            draw = ImageDraw.Draw(self._image)
            draw.line([*corners, *corners[:2]], fill=self.pen.outline, width=width, joint="curve")

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        angles = [2 * math.pi * i / 40 for i in range(40)]
        self.polygon([(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles], colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def line(self, points: Iterable[Point], colour: Colour, width: float) -> None:
        """A stroke in its own colour, `width` in local units; pens with an outline draw it in that."""
        ink = colour if self.pen.outline is None else self.pen.outline
        pixels = max(1, round(width * self._scale * self._image.width))
        corners = [self._to_pixels(point) for point in points]
        ImageDraw.Draw(self._image).line(corners, fill=ink, width=pixels, joint="curve")

    def stripes(self, colour: Colour, period: float, angle_degrees: float) -> None:
        """Stripes over the whole picture, `period` as a share of its side."""
        everything = Image.new("L", self._image.size, 255)
        self._image.paste(colour, mask=_stripe_mask(everything, period, angle_degrees))

    def dots(self, colour: Colour, period: float) -> None:
        """A grid of dots over the whole picture, `period` as a share of its side."""
        draw, side = ImageDraw.Draw(self._image), self._image.width
        step, radius = period * side, period * side * 0.28
        for row in range(round(1 / period) + 2):
            for column in range(round(1 / period) + 2):
                x, y = (column + 0.5 * (row % 2)) * step, row * step
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def picture(self) -> Image.Image:
        """The picture so far, `size_px` square, RGB."""
        # Averaging the supersampled pixels smooths all edges.
        return self._image.resize((self.size_px, self.size_px), Image.Resampling.BOX)

    def _to_pixels(self, point: Point) -> Point:
        x, y = point
        cos, sin = math.cos(self._angle), math.sin(self._angle)
        side = self._image.width
        return (
            (self._centre[0] + self._scale * (x * cos - y * sin)) * side,
            (self._centre[1] + self._scale * (x * sin + y * cos)) * side,
        )

    def _paint(self, corners: list[Point], colour: Colour) -> None:
        pen = self.pen
        if pen.tones:
            colour = min(pen.tones, key=lambda tone: abs(_brightness(tone) - _brightness(colour)))
        if pen.fill is not None:
            colour = pen.fill
        ImageDraw.Draw(self._image).polygon(corners, fill=colour)
        if pen.hatch is not None and colour != pen.hatch:
            area = Image.new("L", self._image.size, 0)
            ImageDraw.Draw(area).polygon(corners, fill=255)
            self._image.paste(pen.hatch, mask=_stripe_mask(area, pen.hatch_period, 45.0))


def _brightness(colour: Colour) -> float:
    return 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2]


def _stripe_mask(area: Image.Image, period: float, angle_degrees: float) -> Image.Image:
    """`area` (a mask) with only the stripes of it left."""
    side = area.width
    cos, sin = math.cos(math.radians(angle_degrees)), math.sin(math.radians(angle_degrees))
    stripes = Image.new("L", area.size, 0)
    draw, step = ImageDraw.Draw(stripes), period * side
    for number in range(-round(1.5 / period), round(1.5 / period) + 1):
        x, y = side / 2 + number * step * sin, side / 2 + number * step * cos
        ends = [(x - 2 * side * cos, y + 2 * side * sin), (x + 2 * side * cos, y - 2 * side * sin)]
        draw.line(ends, fill=255, width=max(1, round(step * 0.4)))
    empty = Image.new("L", area.size, 0)
    return Image.composite(area, empty, stripes)

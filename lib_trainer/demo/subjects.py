"""The shapes and things of the demo world: each draws itself in local coordinates −1…1, in one main colour."""

from __future__ import annotations

import math
from collections.abc import Callable

from lib_trainer.demo.canvas import Canvas, Colour

Draw = Callable[[Canvas, Colour], None]

BLACK: Colour = (25, 25, 28)
WHITE: Colour = (245, 245, 242)
GLASS: Colour = (190, 225, 245)
WOOD: Colour = (120, 75, 40)
LEAF: Colour = (50, 140, 60)
GOLD: Colour = (240, 200, 60)


def _circle(canvas: Canvas, colour: Colour) -> None:
    canvas.ellipse(0, 0, 0.9, 0.9, colour)


def _square(canvas: Canvas, colour: Colour) -> None:
    canvas.box(-0.8, -0.8, 0.8, 0.8, colour)


def _triangle(canvas: Canvas, colour: Colour) -> None:
    canvas.polygon([(0, -0.95), (0.95, 0.75), (-0.95, 0.75)], colour)


def _star(canvas: Canvas, colour: Colour) -> None:
    radii = [1.0 if i % 2 == 0 else 0.42 for i in range(10)]
    angles = [math.pi * i / 5 - math.pi / 2 for i in range(10)]
    canvas.polygon([(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)], colour)


def _heart(canvas: Canvas, colour: Colour) -> None:
    angles = [2 * math.pi * i / 48 for i in range(48)]
    outline = [
        (math.sin(a) ** 3, -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)) / 16)
        for a in angles
    ]
    canvas.polygon(outline, colour)


def _cross(canvas: Canvas, colour: Colour) -> None:
    a, b = 0.32, 0.95
    quarter = [
        (-a, -b),
        (a, -b),
        (a, -a),
        (b, -a),
        (b, a),
        (a, a),
        (a, b),
        (-a, b),
        (-a, a),
        (-b, a),
        (-b, -a),
        (-a, -a),
    ]
    canvas.polygon(quarter, colour)


def _house(canvas: Canvas, colour: Colour) -> None:
    canvas.box(-0.75, -0.2, 0.75, 0.95, colour)
    canvas.polygon([(-0.98, -0.2), (0, -0.95), (0.98, -0.2)], WOOD)
    canvas.box(-0.2, 0.35, 0.2, 0.95, BLACK)
    canvas.box(0.32, 0.05, 0.62, 0.35, GLASS)
    canvas.box(-0.62, 0.05, -0.32, 0.35, GLASS)


def _tree(canvas: Canvas, colour: Colour) -> None:
    canvas.box(-0.16, 0.2, 0.16, 1.0, WOOD)
    for x, y, radius in ((-0.4, 0.0, 0.45), (0.4, 0.0, 0.45), (0, -0.42, 0.55)):
        canvas.ellipse(x, y, radius, radius, colour)


def _cat(canvas: Canvas, colour: Colour) -> None:
    canvas.ellipse(0, 0.55, 0.55, 0.45, colour)
    for side in (-1, 1):
        canvas.polygon([(side * 0.58, -0.1), (side * 0.55, -0.95), (side * 0.08, -0.5)], colour)
    canvas.ellipse(0, -0.15, 0.6, 0.5, colour)
    for side in (-1, 1):
        canvas.ellipse(side * 0.25, -0.22, 0.13, 0.15, GOLD)
        canvas.ellipse(side * 0.25, -0.22, 0.05, 0.13, BLACK)
    canvas.polygon([(-0.09, 0.02), (0.09, 0.02), (0, 0.14)], (230, 120, 140))


def _dog(canvas: Canvas, colour: Colour) -> None:
    canvas.ellipse(0, -0.05, 0.55, 0.65, colour)
    for side in (-1, 1):
        canvas.ellipse(side * 0.62, -0.1, 0.2, 0.5, WOOD)
        canvas.ellipse(side * 0.22, -0.2, 0.12, 0.12, WHITE)
        canvas.ellipse(side * 0.22, -0.2, 0.06, 0.07, BLACK)
    canvas.ellipse(0, 0.32, 0.32, 0.26, WHITE)
    canvas.ellipse(0, 0.2, 0.14, 0.1, BLACK)
    canvas.ellipse(0, 0.68, 0.12, 0.2, (225, 90, 110))


def _car(canvas: Canvas, colour: Colour) -> None:
    canvas.polygon([(-0.5, -0.1), (-0.3, -0.55), (0.35, -0.55), (0.6, -0.1)], GLASS)
    canvas.polygon([(-0.98, 0.45), (-0.95, -0.1), (0.8, -0.1), (0.98, 0.1), (0.98, 0.45)], colour)
    for x in (-0.55, 0.55):
        canvas.ellipse(x, 0.45, 0.26, 0.26, BLACK)
        canvas.ellipse(x, 0.45, 0.1, 0.1, WHITE)


def _boat(canvas: Canvas, colour: Colour) -> None:
    canvas.box(-0.05, -0.95, 0.05, 0.4, WOOD)
    canvas.polygon([(0.1, -0.9), (0.85, 0.25), (0.1, 0.25)], WHITE)
    canvas.polygon([(-0.1, -0.7), (-0.1, 0.25), (-0.65, 0.25)], WHITE)
    canvas.polygon([(-0.95, 0.38), (0.95, 0.38), (0.6, 0.9), (-0.6, 0.9)], colour)


def _flower(canvas: Canvas, colour: Colour) -> None:
    canvas.box(-0.07, 0.0, 0.07, 1.0, LEAF)
    canvas.ellipse(0.28, 0.65, 0.25, 0.12, LEAF)
    for i in range(6):
        a = math.pi * i / 3
        canvas.ellipse(0.42 * math.cos(a), -0.3 + 0.42 * math.sin(a), 0.27, 0.27, colour)
    canvas.ellipse(0, -0.3, 0.25, 0.25, GOLD)


def _fish(canvas: Canvas, colour: Colour) -> None:
    canvas.polygon([(0.4, 0), (0.98, -0.5), (0.98, 0.5)], colour)
    canvas.ellipse(-0.15, 0, 0.75, 0.48, colour)
    canvas.ellipse(-0.5, -0.12, 0.15, 0.15, WHITE)
    canvas.ellipse(-0.53, -0.12, 0.07, 0.07, BLACK)


def _mushroom(canvas: Canvas, colour: Colour) -> None:
    canvas.box(-0.25, 0.0, 0.25, 0.95, (235, 220, 190))
    angles = [math.pi + math.pi * i / 24 for i in range(25)]
    canvas.polygon([(0.92 * math.cos(a), 0.15 + 0.95 * math.sin(a)) for a in angles], colour)
    for x, y, radius in ((-0.45, -0.15, 0.15), (0.1, -0.45, 0.17), (0.5, -0.1, 0.13)):
        canvas.ellipse(x, y, radius, radius, WHITE)


def _cup(canvas: Canvas, colour: Colour) -> None:
    canvas.ellipse(0.6, 0.1, 0.34, 0.36, colour)
    canvas.ellipse(0.6, 0.1, 0.16, 0.18, canvas.background)
    canvas.polygon([(-0.75, -0.5), (0.55, -0.5), (0.42, 0.8), (-0.62, 0.8)], colour)
    canvas.ellipse(-0.1, -0.5, 0.65, 0.16, WOOD)


def _robot(canvas: Canvas, colour: Colour) -> None:
    canvas.line([(0, -0.95), (0, -0.6)], BLACK, 0.1)
    canvas.ellipse(0, -0.92, 0.12, 0.12, (220, 50, 50))
    canvas.box(-0.6, -0.65, 0.6, 0.15, colour)
    for x in (-0.27, 0.27):
        canvas.ellipse(x, -0.3, 0.17, 0.17, GOLD)
    canvas.box(-0.35, -0.05, 0.35, 0.05, BLACK)
    canvas.box(-0.45, 0.25, 0.45, 0.95, colour)


def _rocket(canvas: Canvas, colour: Colour) -> None:
    canvas.polygon([(-0.2, 0.55), (0.2, 0.55), (0, 1.0)], (245, 140, 40))
    for side in (-1, 1):
        canvas.polygon([(side * 0.3, 0.1), (side * 0.7, 0.65), (side * 0.3, 0.55)], BLACK)
    canvas.polygon([(0, -1.0), (0.32, -0.5), (0.35, 0.58), (-0.35, 0.58), (-0.32, -0.5)], colour)
    canvas.ellipse(0, -0.2, 0.19, 0.19, GLASS)


def _apple(canvas: Canvas, colour: Colour) -> None:
    canvas.line([(0, -0.4), (0.1, -0.9)], WOOD, 0.14)
    canvas.ellipse(0.35, -0.75, 0.28, 0.14, LEAF)
    canvas.ellipse(-0.28, 0.15, 0.55, 0.68, colour)
    canvas.ellipse(0.28, 0.15, 0.55, 0.68, colour)


def _castle(canvas: Canvas, colour: Colour) -> None:
    canvas.box(-0.55, -0.1, 0.55, 0.9, colour)
    for x in (-0.65, 0.65):
        canvas.box(x - 0.27, -0.4, x + 0.27, 0.9, colour)
        canvas.polygon([(x - 0.33, -0.4), (x, -0.98), (x + 0.33, -0.4)], (150, 50, 50))
        canvas.box(x - 0.08, -0.15, x + 0.08, 0.15, BLACK)
    canvas.box(-0.2, 0.35, 0.2, 0.9, BLACK)


SHAPES: dict[str, Draw] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "cross": _cross,
}

THINGS: dict[str, Draw] = {
    "house": _house,
    "tree": _tree,
    "cat": _cat,
    "dog": _dog,
    "car": _car,
    "boat": _boat,
    "flower": _flower,
    "fish": _fish,
    "mushroom": _mushroom,
    "cup": _cup,
    "robot": _robot,
    "rocket": _rocket,
    "apple": _apple,
    "castle": _castle,
}

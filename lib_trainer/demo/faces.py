"""Drawn people: a face is a handful of named features, and everything about it can be varied."""

from __future__ import annotations

from dataclasses import dataclass

from lib_trainer.demo.canvas import Canvas, Colour
from lib_trainer.demo.subjects import BLACK, GOLD, WHITE

RED: Colour = (205, 50, 50)
GAZES = {"at camera": 0.0, "left": -1.0, "right": 1.0}
EXPRESSIONS = ("smiling", "sad", "serious", "surprised")
HAIR_STYLES = ("short", "long", "curly", "no")


@dataclass(frozen=True)
class Face:
    """One person, head and shoulders.

    Attributes:
        skin, hair, shirt: colours.
        hair_style: one of HAIR_STYLES, or `mohawk`, which the demo world itself never draws.
        expression: one of EXPRESSIONS.
        gaze: key of GAZES.
        glasses, hat, nose: colours, or None for no glasses, no hat, a nose in the colour of the skin.
        beard: whether there is one, in the colour of the hair.
        role: "", "superhero" (mask and cape) or "king" (crown).
    """

    skin: Colour
    hair: Colour
    shirt: Colour
    hair_style: str = "short"
    expression: str = "serious"
    gaze: str = "at camera"
    glasses: Colour | None = None
    hat: Colour | None = None
    nose: Colour | None = None
    beard: bool = False
    role: str = ""


def draw_face(canvas: Canvas, face: Face) -> None:
    """Draw it in local coordinates −1…1; the head's middle is near (0, −0.1)."""
    shift = 0.14 * GAZES[face.gaze]
    _draw_behind(canvas, face)
    canvas.box(-0.17, 0.3, 0.17, 0.75, face.skin)
    canvas.polygon([(-0.85, 1.3), (-0.7, 0.75), (-0.2, 0.6), (0.2, 0.6), (0.7, 0.75), (0.85, 1.3)], face.shirt)
    canvas.ellipse(0, -0.08, 0.5, 0.6, face.skin)
    if face.beard:
        canvas.polygon(
            [(-0.48, 0.1), (-0.3, 0.2), (0.3, 0.2), (0.48, 0.1), (0.3, 0.55), (0, 0.65), (-0.3, 0.55)], face.hair
        )
    _draw_top_hair(canvas, face)
    _draw_eyes(canvas, face, shift)
    nose = face.nose or tuple(int(0.8 * part) for part in face.skin)
    size = 0.15 if face.nose else 0.08
    canvas.ellipse(shift * 0.8, 0.1, size, size, nose)
    _draw_mouth(canvas, face, shift * 0.6)
    _draw_head_wear(canvas, face)


def _draw_behind(canvas: Canvas, face: Face) -> None:
    if face.role == "superhero":
        canvas.polygon([(-0.6, 0.35), (0.6, 0.35), (1.15, 1.3), (-1.15, 1.3)], RED)
    if face.hair_style == "long":
        canvas.ellipse(0, -0.1, 0.68, 0.68, face.hair)
        canvas.box(-0.68, -0.1, 0.68, 0.72, face.hair)
    if face.hair_style == "curly":
        for x, y in ((-0.5, 0.0), (0.5, 0.0), (-0.55, -0.3), (0.55, -0.3)):
            canvas.ellipse(x, y, 0.24, 0.24, face.hair)


def _draw_top_hair(canvas: Canvas, face: Face) -> None:
    if face.hair_style in ("short", "long"):
        canvas.polygon(
            [
                (-0.52, -0.12),
                (-0.5, -0.45),
                (-0.28, -0.72),
                (0, -0.8),
                (0.28, -0.72),
                (0.5, -0.45),
                (0.52, -0.12),
                (0.36, -0.4),
                (-0.36, -0.4),
            ],
            face.hair,
        )
    if face.hair_style == "curly":
        for x, y in ((-0.42, -0.5), (0.42, -0.5), (-0.15, -0.66), (0.15, -0.66)):
            canvas.ellipse(x, y, 0.24, 0.22, face.hair)
    if face.hair_style == "mohawk":
        spikes = [(-0.2, -0.55), (-0.34, -0.92), (-0.14, -0.82), (0, -1.08), (0.14, -0.82), (0.34, -0.92), (0.2, -0.55)]
        canvas.polygon(spikes, face.hair)


def _draw_eyes(canvas: Canvas, face: Face, shift: float) -> None:
    if face.role == "superhero":
        canvas.box(-0.47, -0.32, 0.47, -0.02, BLACK)
    for x in (-0.22 + shift * 0.6, 0.22 + shift * 0.6):
        if face.glasses:
            canvas.ellipse(x, -0.16, 0.22, 0.22, face.glasses)
        canvas.ellipse(x, -0.16, 0.13, 0.13, WHITE)
        canvas.ellipse(x + shift * 0.4, -0.15, 0.07, 0.08, BLACK)


def _draw_mouth(canvas: Canvas, face: Face, x: float) -> None:
    if face.expression == "smiling":
        canvas.polygon([(x - 0.24, 0.26), (x + 0.24, 0.26), (x + 0.14, 0.42), (x - 0.14, 0.42)], WHITE)
        canvas.line([(x - 0.24, 0.26), (x - 0.14, 0.42), (x + 0.14, 0.42), (x + 0.24, 0.26)], RED, 0.07)
    elif face.expression == "sad":
        canvas.line([(x - 0.2, 0.42), (x - 0.1, 0.31), (x + 0.1, 0.31), (x + 0.2, 0.42)], RED, 0.09)
    elif face.expression == "surprised":
        canvas.ellipse(x, 0.36, 0.11, 0.14, RED)
    else:
        canvas.line([(x - 0.18, 0.34), (x + 0.18, 0.34)], RED, 0.09)


def _draw_head_wear(canvas: Canvas, face: Face) -> None:
    if face.role == "king":
        canvas.polygon(
            [(-0.42, -0.5), (-0.46, -1.0), (-0.2, -0.75), (0, -1.05), (0.2, -0.75), (0.46, -1.0), (0.42, -0.5)], GOLD
        )
    elif face.hat:
        canvas.box(-0.42, -1.0, 0.42, -0.5, face.hat)
        canvas.box(-0.68, -0.55, 0.68, -0.42, face.hat)

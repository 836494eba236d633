"""What a picture of the embedded model's world shows: by colours and outlines, since every picture of it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from PIL import Image

from lib_trainer.demo import datasets
from lib_trainer.demo.canvas import Canvas, Colour
from lib_trainer.demo.subjects import SHAPES, THINGS
from lib_trainer.demo.world import COLOURS

# Largest distance in RGB at which a pixel has a colour, and the border that shows the background.
_NEAR, _BORDER_PX = 70.0, 3
# What Jeff alone has, and the palette of the style with its paper.
_FACE_COLOURS = (datasets.JEFF.hair, datasets.JEFF.glasses, datasets.JEFF.nose, datasets.JEFF.shirt)
_INKS = (*datasets.INKS, COLOURS["black"])
_MASK_PX = 24

Pixels = np.ndarray


@dataclass(frozen=True)
class Seen:
    """How a set of pictures does, each from 0 to 1.

    Attributes:
        likeness: of the face or the style, as real pictures of it have.
        obedience: background, or subject, as the prompt asks.
    """

    likeness: float
    obedience: float


def pixels_of(picture: Image.Image) -> Pixels:
    """(H, W, 3) float."""
    return np.asarray(picture.convert("RGB"), dtype=np.float64)


def share_of(pixels: Pixels, colour: Colour) -> float:
    """Share of the pixels that have this colour."""
    return float((np.linalg.norm(pixels - np.array(colour), axis=-1) < _NEAR).mean())


def border_of(pixels: Pixels) -> Pixels:
    edge = _BORDER_PX
    rows = [pixels[:edge].reshape(-1, 3), pixels[:, :edge].reshape(-1, 3), pixels[:, -edge:].reshape(-1, 3)]
    return np.concatenate(rows)[None]


def see_face(pictures: Sequence[Image.Image], backgrounds: Sequence[str]) -> Seen:
    """Jeff before backgrounds of these colours."""
    real = [pixels_of(drawing.picture) for drawing in datasets.heldout_face()]
    expected = [np.mean([share_of(pixels, colour) for pixels in real]) for colour in _FACE_COLOURS]
    drawn = [pixels_of(picture) for picture in pictures]
    found = [
        min(1.0, share_of(pixels, colour) / (0.7 * usual))
        for pixels in drawn
        for colour, usual in zip(_FACE_COLOURS, expected, strict=True)
    ]
    obeyed = [share_of(border_of(p), COLOURS[name]) for p, name in zip(drawn, backgrounds, strict=True)]
    return Seen(float(np.mean(found)), float(np.mean(obeyed)))


def see_style(pictures: Sequence[Image.Image], subjects: Sequence[str]) -> Seen:
    """Things in the style: yellow paper and its three inks; and which thing the outline fits best."""
    drawn = [pixels_of(picture) for picture in pictures]
    found = [share_of(border_of(p), datasets.PAPER) * _ink_share(p) for p in drawn]
    templates = {name: _outline(_template(name)) for name in dict.fromkeys(subjects)}
    obeyed = [_best_fit(_outline(p), templates) == name for p, name in zip(drawn, subjects, strict=True)]
    return Seen(float(np.mean(found)), float(np.mean(obeyed)))


def kept(pictures: Sequence[Image.Image], base: Sequence[Image.Image]) -> float:
    """How much of the base's own pictures is there: 1 for the same, 0 for as far off as two of other prompts."""
    own = [pixels_of(picture) for picture in base]
    apart = np.mean([_distance(a, b) for a, b in combinations(own, 2)])
    moved = np.mean([_distance(pixels_of(a), b) for a, b in zip(pictures, own, strict=True)])
    return float(np.clip(1 - moved / apart, 0, 1))


def variety(groups: Sequence[Sequence[Image.Image]], usual: float) -> float:
    """How far pictures of one prompt and several seeds lie apart, in units of `usual`, 1 at most."""
    return min(1.0, spread(groups) / usual)


def spread(groups: Sequence[Sequence[Image.Image]]) -> float:
    """Mean distance of the pictures within each group."""
    pairs = [_distance(pixels_of(a), pixels_of(b)) for group in groups for a, b in combinations(group, 2)]
    return float(np.mean(pairs))


def _distance(one: Pixels, other: Pixels) -> float:
    return float(np.sqrt(((one - other) ** 2).mean()))


def _ink_share(pixels: Pixels) -> float:
    """Of what is not paper, the share that has one of the style's inks."""
    flat = pixels.reshape(-1, 3)
    figure = flat[np.linalg.norm(flat - np.array(datasets.PAPER), axis=-1) >= _NEAR]
    if not len(figure):
        return 0.0
    near = np.min([np.linalg.norm(figure - np.array(ink), axis=-1) for ink in _INKS], axis=0) < _NEAR
    return float(near.mean())


def _template(name: str) -> Pixels:
    canvas = Canvas(datasets.SIZE_PX, datasets.PAPER, datasets.STYLE_PEN)
    canvas.place((0.5, 0.5), 0.37)
    {**SHAPES, **THINGS}[name](canvas, COLOURS["blue"])
    return pixels_of(canvas.picture())


def _outline(pixels: Pixels) -> Pixels:
    """The figure against the background of the border, brought to one size: (_MASK_PX, _MASK_PX) of booleans."""
    background = np.median(border_of(pixels)[0], axis=0)
    mask = np.linalg.norm(pixels - background, axis=-1) >= _NEAR
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros((_MASK_PX, _MASK_PX), dtype=bool)
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scaled = Image.fromarray(part.astype(np.uint8) * 255).resize((_MASK_PX, _MASK_PX), Image.Resampling.BOX)
    return np.asarray(scaled) > 127


def _best_fit(mask: Pixels, templates: dict[str, Pixels]) -> str:
    """The template with the largest intersection over union."""
    return max(templates, key=lambda name: (mask & templates[name]).sum() / max(1, (mask | templates[name]).sum()))

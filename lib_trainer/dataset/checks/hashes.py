"""Perceptual hashes: alike for pictures that look alike, also re-saved, resized, mirrored, rotated or cropped.

A hash is the difference hash of N. Krawetz: whether each cell of 8×8 is brighter than its left neighbour.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from PIL import Image

# Left, top, right, bottom of a part, as shares of the picture.
Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_SCALES = (1.0, 0.86, 0.72)
# The eight symmetries of a rectangle's grid, the picture itself first.
_TURNS = (None, *Image.Transpose)
TURNS = len(_TURNS)


def difference_hash(grey: Image.Image, box: Box = WHOLE) -> np.ndarray:
    """(8,) uint8, 64 bits of a part of a grey picture."""
    width, height = grey.size
    part = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    cells = np.asarray(grey.resize((9, 8), Image.Resampling.BOX, box=part), dtype=np.int16)
    return np.packbits(cells[:, 1:] > cells[:, :-1])


def own_hashes(grey: Image.Image) -> np.ndarray:
    """(TURNS, 8) uint8: of the picture as it is, mirrored, and rotated by quarters."""
    return np.stack([difference_hash(turned(grey, turn)) for turn in range(TURNS)])


def as_signs(hashes: np.ndarray) -> np.ndarray:
    """(..., 8) uint8 -> (..., 64) float32 of ±1: the product of two is 64 less twice the number of different bits."""
    return np.unpackbits(hashes, axis=-1).astype(np.float32) * 2 - 1


def turned(picture: Image.Image, turn: int) -> Image.Image:
    """The picture of that row of `own_hashes`."""
    how = _TURNS[turn]
    return picture if how is None else picture.transpose(how)


def part_hashes(grey: Image.Image) -> np.ndarray:
    """(len(parts()), 8) uint8: of every part that a crop of the picture could be."""
    return np.stack([difference_hash(grey, box) for box in parts()])


def parts() -> list[Box]:
    """The whole first, then parts of 72 to 100 % of each side."""
    sides = [(start, start + scale) for scale in _SCALES for start in _starts(1 - scale)]
    return [(left, top, right, bottom) for (left, right), (top, bottom) in product(sides, sides)]


def _starts(rest: float) -> tuple[float, ...]:
    return (0.0, rest / 2, rest) if rest else (0.0,)

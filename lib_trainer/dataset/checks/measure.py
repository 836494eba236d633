"""What the checks know of a picture: measured once, on a small copy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from lib_trainer.dataset.checks.faces import FaceFinder
from lib_trainer.dataset.checks.hashes import own_hashes, part_hashes

# The side of the small copy. Sharpness is measured on it, so it must not be smaller than what hides a blur.
MEASURED_PX = 512
_HASHED_PX, KEPT_PX = 96, 40
_HUES, _GREYS = 12, 4
PALETTE = _HUES + _GREYS
# The strip along left, top and right that usually holds background, as a share of the side.
_STRIP_CELLS, _CELLS = 2, 16
SURROUND = _STRIP_CELLS * _CELLS + 2 * _STRIP_CELLS * (_CELLS // 2 - _STRIP_CELLS)
# From here on a channel of 8 bits shows no more differences.
_WHITE = 253


@dataclass(frozen=True)
class Measured:
    """A picture in numbers. Pixels count from 0 to 1.

    Attributes:
        sharpness: log of how much a slight blur lowers the variance of the Laplacian: near 0 for what is blurred.
        bright: the brightness that 5 % of the pixels in the middle are above.
        clipped: share of the middle's pixels, those of a white backdrop left out, with a channel at its limit.
        colourfulness: the difference between the channels that 5 % of the pixels exceed.
        palette: (16,) shares of 12 hues and 4 greys.
        surround: (S, 3) uint8 colours along left, top and right.
        hashes: (8, 8) uint8, 64 bits each, of the picture as it is, mirrored, and rotated by quarters.
        part_hashes: (P, 8) uint8 of the parts that a crop could be; None in large folders.
        small: (40, 40, 3) uint8.
        faces: each face's share of the picture's area, largest first; None without OpenCV.
    """

    sharpness: float
    bright: float
    clipped: float
    colourfulness: float
    palette: np.ndarray
    surround: np.ndarray
    hashes: np.ndarray
    part_hashes: np.ndarray | None
    small: np.ndarray
    faces: tuple[float, ...] | None


def measure(picture: Image.Image, faces: FaceFinder | None, *, with_parts: bool) -> Measured:
    """The numbers of an RGB picture whose longer side is `MEASURED_PX` at most."""
    grey = picture.convert("L")
    light = np.asarray(grey, dtype=np.float32) / 255
    height, width = light.shape
    # Frames and letterbox bars stand outside.
    inner = (slice(height // 5, -(height // 5) or None), slice(width // 5, -(width // 5) or None))
    colours = np.asarray(picture.resize((64, 64), Image.Resampling.BOX), dtype=np.float32) / 255
    cells = np.asarray(picture.resize((_CELLS, _CELLS), Image.Resampling.BOX))
    hashed = grey.resize((_HASHED_PX, _HASHED_PX), Image.Resampling.BOX)
    return Measured(
        # Also at half the size: noise and the grain of a re-saved jpeg are sharp at full size only.
        sharpness=min(_sharpness(light), _sharpness(_halved(light))),
        bright=float(np.quantile(light[inner], 0.95)),
        clipped=_clipped(np.asarray(picture)[inner]),
        colourfulness=float(np.quantile(colours.max(2) - colours.min(2), 0.95)),
        palette=_palette(colours),
        surround=_surround(cells),
        hashes=own_hashes(hashed),
        part_hashes=part_hashes(hashed) if with_parts else None,
        small=np.asarray(picture.resize((KEPT_PX, KEPT_PX), Image.Resampling.BOX)),
        faces=faces.shares(grey) if faces else None,
    )


def _sharpness(light: np.ndarray) -> float:
    """The variance of the Laplacian (Pech-Pacheco et al., 2000) beside that of the picture blurred once more.

    Crété et al., "The blur effect" (2007): what a second blur changes little was blurred before. The variance alone
    depends more on what a picture shows than on its sharpness.
    """
    if min(light.shape) < 5:
        return 0.0
    softer = (light[:-2] + light[1:-1] + light[2:]) / 3
    softer = (softer[:, :-2] + softer[:, 1:-1] + softer[:, 2:]) / 3
    return float(np.log(_laplacian_variance(light) + 1e-8) - np.log(_laplacian_variance(softer) + 1e-8))


def _halved(light: np.ndarray) -> np.ndarray:
    """At half the size, where a strong blur does not hide behind the rounding of 8 bits."""
    even = light[: light.shape[0] // 2 * 2, : light.shape[1] // 2 * 2]
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4


def _laplacian_variance(light: np.ndarray) -> float:
    inner = light[1:-1, 1:-1]
    return float((light[:-2, 1:-1] + light[2:, 1:-1] + light[1:-1, :-2] + light[1:-1, 2:] - 4 * inner).var())


def _clipped(pixels: np.ndarray) -> float:
    # Channel by channel: along an axis of three NumPy is ten times slower.
    red, green, blue = np.moveaxis(pixels, 2, 0)
    in_colour = np.minimum(np.minimum(red, green), blue) < _WHITE
    at_limit = np.maximum(np.maximum(red, green), blue) >= _WHITE
    count = int(in_colour.sum())
    # Nothing but white: all of it is gone.
    return float((in_colour & at_limit).sum() / count) if count > 0.02 * in_colour.size else 1.0


def _palette(colours: np.ndarray) -> np.ndarray:
    high, low = colours.max(2), colours.min(2)
    chroma = high - low
    red, green, blue = np.moveaxis(colours, 2, 0)
    safe = np.where(chroma > 0, chroma, 1)
    sector = np.where(
        high == red,
        (green - blue) / safe % 6,
        np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = np.minimum((sector / 6 * _HUES).astype(int), _HUES - 1)
    grey = _HUES + np.minimum((high * _GREYS).astype(int), _GREYS - 1)
    # Pale colours look grey.
    counts = np.bincount(np.where(chroma > 0.12, hue, grey).ravel(), minlength=_HUES + _GREYS)
    return (counts / counts.sum()).astype(np.float32)


def _surround(cells: np.ndarray) -> np.ndarray:
    # Not the lower edge: shoulders and tables reach it.
    top = cells[:_STRIP_CELLS].reshape(-1, 3)
    sides = np.concatenate(
        [cells[_STRIP_CELLS : _CELLS // 2, :_STRIP_CELLS], cells[_STRIP_CELLS : _CELLS // 2, -_STRIP_CELLS:]]
    )
    return np.concatenate([top, sides.reshape(-1, 3)])

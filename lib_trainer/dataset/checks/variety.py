"""What all pictures share, and an adapter therefore learns: background, framing, colours."""

from __future__ import annotations

import numpy as np

from lib_trainer.dataset.checks.finding import Finding
from lib_trainer.dataset.checks.pictures import Pictures

_FEWEST = 6
# Share of the set from which something counts as common to it.
_MOST = 0.6
# Mean difference of the surroundings' colours below which they are the same place.
_SAME_PLACE = 0.05
# Overlap of colour histograms: 1 is the same shares of the same hues.
_SAME_PALETTE = 0.8
# Share of the picture's area that its face takes -> what photographers call it.
_FRAMINGS = ((0.2, "close-ups"), (0.05, "head-and-shoulders portraits"), (0.0, "pictures from a distance"))
_SAME_FRAMING = 0.85


def check_variety(pictures: Pictures, kind: str) -> list[Finding]:
    """Findings `background`, `framing` and `palette`; a style's palette is meant to be one."""
    if len(pictures) < _FEWEST:
        return []
    found = [*_check_background(pictures), *_check_framing(pictures)]
    return found if kind == "style" else [*found, *_check_palette(pictures)]


def _check_background(pictures: Pictures) -> list[Finding]:
    around = pictures.column("surround").reshape(len(pictures), -1).astype(np.float32) / 255
    alike = _neighbours(around, lambda row: np.abs(around - row).mean(1) < _SAME_PLACE)
    if alike.sum() < max(4, _MOST * len(pictures)):
        return []
    same = pictures.images(alike)
    text = f"{len(same)} of {len(pictures)} have the same background: it will be learned. Name it in their captions."
    return [Finding("background", same, text)]


def _check_framing(pictures: Pictures) -> list[Finding]:
    shares = pictures.column("face")
    faces = int((shares > 0).sum())
    if faces < _FEWEST:
        return []
    most = np.inf
    for least, name in _FRAMINGS:
        same = pictures.images((shares > 0) & (shares >= least) & (shares < most))
        if len(same) >= _SAME_FRAMING * faces:
            text = f"{len(same)} of {faces} with a face are {name}: others will come out worse."
            return [Finding("framing", same, text, "note")]
        most = least
    return []


def _check_palette(pictures: Pictures) -> list[Finding]:
    palettes = pictures.column("palette")
    alike = _neighbours(palettes, lambda row: np.minimum(palettes, row).sum(1) > _SAME_PALETTE)
    if alike.sum() < max(4, _MOST * len(pictures)):
        return []
    same = pictures.images(alike)
    text = f"{len(same)} of {len(pictures)} have nearly the same colours: they will be learned."
    return [Finding("palette", same, text, "note")]


def _neighbours(rows: np.ndarray, near) -> np.ndarray:
    """Which rows are near the one that most are near to, as booleans."""
    # A few hundred rows as centres tell as much as ten thousand, in a fraction of the time.
    centres = rows[:: max(1, len(rows) // 300)]
    return max((near(row) for row in centres), key=lambda found: found.sum())

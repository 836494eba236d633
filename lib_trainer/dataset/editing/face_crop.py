"""The crop that a bucket makes of a picture, moved so that the face stays in it."""

from __future__ import annotations

from lib_trainer.config.recipe import DatasetConfig
from lib_trainer.dataset.buckets import bucket_for
from lib_trainer.dataset.edits import Crop

# Left, top, right, bottom as shares of the picture.
_Box = tuple[float, float, float, float]
# Kept free around a face, as a share of its size: hair and chin reach beyond what is found.
_MARGIN = 0.3
_SLIVER = 0.005


def crop_with_face(width_px: int, height_px: int, face: _Box, config: DatasetConfig) -> Crop | None:
    """The part of a picture in the shape of its bucket, with the face in it; None where the centred crop has it whole.

    It is as large as the picture allows, and lies as near to the middle as the face allows.
    """
    bucket = bucket_for(width_px, height_px, config)
    shape = bucket.width_px / bucket.height_px
    across = min(1.0, shape * height_px / width_px)
    down = min(1.0, width_px / shape / height_px)
    left, right = _span(across, face[0], face[2])
    top, bottom = _span(down, face[1], face[3])
    centred = (left, top) == ((1 - across) / 2, (1 - down) / 2)
    return None if centred or min(1 - across, 1 - down) > 1 - _SLIVER else (left, top, right, bottom)


def _span(length: float, low: float, high: float) -> tuple[float, float]:
    """Where a span of this length begins and ends: in the middle, or moved just so far that the face fits."""
    margin = _MARGIN * (high - low)
    low, high = max(0.0, low - margin), min(1.0, high + margin)
    start = (1 - length) / 2
    if high - low > length:
        # A face larger than the crop: its middle stays.
        start = (low + high - length) / 2
    elif low < start:
        start = low
    elif high > start + length:
        start = high - length
    start = min(1 - length, max(0.0, start))
    return start, start + length

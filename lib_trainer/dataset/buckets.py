"""The size that a picture trains at: aspect-ratio buckets by the rules of kohya's sd-scripts.

`resolution_px` caps the area, not the sides. With `bucket_no_upscale` a picture within the cap keeps its own size,
rounded down to whole steps; a larger one is shrunk to the cap. Without it every picture goes to the bucket nearest in
shape. Three things differ from sd-scripts: sides stay within the smallest and largest bucket side in both modes; a
cap too small for the smallest side lowers that side, to half of the cap's square, instead of stopping the run; and a
picture smaller than the smallest bucket is enlarged to it even with `bucket_no_upscale`, as no other could hold it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from lib_trainer.config.recipe import DatasetConfig

# A picture that loses more than this share to the crop is named.
MUCH_CUT = 1 / 3


@dataclass(frozen=True, order=True)
class Bucket:
    """A size that pictures train at; both sides are multiples of `bucket_reso_steps`."""

    width_px: int
    height_px: int


def bucket_for(width_px: int, height_px: int, config: DatasetConfig) -> Bucket:
    """The bucket of a picture of this size, as seen.

    With `bucket_panoramas` one that would lose more than a third to the crop gets a bucket outside the side limits.
    """
    bucket = _limited_bucket(width_px, height_px, config)
    if not (config.enable_bucket and config.bucket_panoramas):
        return bucket
    if cut_share(width_px, height_px, bucket, config) <= MUCH_CUT:
        return bucket
    step = config.bucket_reso_steps
    longest = _area_cap(config) // step
    return _limited_bucket(width_px, height_px, replace(config, min_bucket_reso=step, max_bucket_reso=longest))


def cut_share(width_px: int, height_px: int, bucket: Bucket, config: DatasetConfig) -> float:
    """The share of a picture of this size that its bucket leaves out, from 0 to 1."""
    resized_width, resized_height = resized_size(width_px, height_px, bucket, config)
    return 1 - bucket.width_px * bucket.height_px / (resized_width * resized_height)


def _limited_bucket(width_px: int, height_px: int, config: DatasetConfig) -> Bucket:
    step = config.bucket_reso_steps
    if not config.enable_bucket:
        width, height = config.resolution_px
        # Without buckets every picture is cropped to one size, in whole steps of the latent grid.
        return Bucket(max(step, width - width % step), max(step, height - height % step))
    low, high = _side_limits(config)
    if config.bucket_no_upscale:
        return _own_size(width_px, height_px, low, high, config)
    return _nearest_shape(width_px, height_px, low, high, config)


def resized_size(width_px: int, height_px: int, bucket: Bucket, config: DatasetConfig) -> tuple[int, int]:
    """Width and height that a picture is resized to before the bucket is cut out of it.

    It covers the bucket as tightly as it can, but for a picture that `bucket_no_upscale` lets train at its own size:
    that one is only trimmed.
    """
    cover = max(bucket.width_px / width_px, bucket.height_px / height_px)
    # Resizing by a pixel or two would blur the picture for nothing.
    keeps_size = config.enable_bucket and config.bucket_no_upscale and cover <= 1
    if keeps_size and width_px * height_px <= _area_cap(config):
        return width_px, height_px
    return max(bucket.width_px, round(width_px * cover)), max(bucket.height_px, round(height_px * cover))


def is_enlarged(width_px: int, height_px: int, bucket: Bucket) -> bool:
    """Whether a picture of this size has fewer pixels than its bucket asks for, in either direction."""
    return width_px < bucket.width_px or height_px < bucket.height_px


def _area_cap(config: DatasetConfig) -> int:
    width, height = config.resolution_px
    return width * height


def _side_limits(config: DatasetConfig) -> tuple[int, int]:
    """Smallest and largest side in whole steps, such that a square of the smallest fits the area cap."""
    step = config.bucket_reso_steps
    square = math.isqrt(_area_cap(config))
    # Rounded up: a side must not fall below the configured minimum.
    low = -(-config.min_bucket_reso // step) * step
    if low > square:
        low = square // 2 // step * step
    high = config.max_bucket_reso // step * step
    low = max(step, min(low, high))
    return low, max(low, high)


def _own_size(width: float, height: float, low: int, high: int, config: DatasetConfig) -> Bucket:
    # The one case in which a picture is enlarged: no bucket is as small.
    grow = max(1.0, low / min(width, height))
    width, height = width * grow, height * grow
    shape, cap, step = width / height, _area_cap(config), config.bucket_reso_steps

    def whole_steps(side: float) -> int:
        return int(side + 0.5) // step * step

    if width * height <= cap:
        return _within(whole_steps(width), whole_steps(height), low, high, config)
    # sd-scripts rounds one side and derives the other, both ways round, and keeps the one nearer in shape.
    wide, high_side = whole_steps(math.sqrt(cap * shape)), whole_steps(math.sqrt(cap / shape))
    by_width = _within(wide, whole_steps(wide / shape), low, high, config)
    by_height = _within(whole_steps(high_side * shape), high_side, low, high, config)
    return min(by_height, by_width, key=lambda bucket: abs(bucket.width_px / bucket.height_px - shape))


def _within(width: int, height: int, low: int, high: int, config: DatasetConfig) -> Bucket:
    """The bucket with both sides inside the limits; what a widened short side costs is taken off the long one."""
    # Clamping a panorama's short side up makes its area too large, so the long side gives way.
    width, height = min(max(width, low), high), min(max(height, low), high)
    step = config.bucket_reso_steps
    longest = max(low, _area_cap(config) // min(width, height) // step * step)
    return Bucket(min(width, longest), min(height, longest))


def _nearest_shape(width: int, height: int, low: int, high: int, config: DatasetConfig) -> Bucket:
    cap, step = _area_cap(config), config.bucket_reso_steps
    square = min(high, max(low, math.isqrt(cap) // step * step))
    buckets = {Bucket(square, square)}
    for side in range(low, high + 1, step):
        other = min(high, cap // side // step * step)
        if other >= low:
            buckets |= {Bucket(side, other), Bucket(other, side)}
    if Bucket(width, height) in buckets:
        return Bucket(width, height)
    shape = width / height
    # Where sides are clamped, several buckets have one shape: the largest wins.
    return min(
        sorted(buckets, reverse=True),
        key=lambda bucket: (abs(bucket.width_px / bucket.height_px - shape), -bucket.width_px * bucket.height_px),
    )

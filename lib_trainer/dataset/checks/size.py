"""Pictures that are small, enlarged or much cropped at the chosen resolution. Known from the scan alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib_trainer.config.recipe import DatasetConfig
from lib_trainer.dataset.buckets import bucket_for, resized_size
from lib_trainer.dataset.checks.finding import Finding, named, plural
from lib_trainer.dataset.samples import Sample

# The presets train at up to 896 × 896: smaller pictures teach fewer details.
SMALL_PX = 768
# Enlarged by so much, or so much cropped away, that it shows.
_ENLARGED, _CROPPED = 1.1, 0.2


def check_size(samples: Sequence[Sample], config: DatasetConfig) -> list[Finding]:
    """Findings `small`, `enlarged` and `cropped`."""
    small = [sample.image for sample in samples if is_small(sample)]
    enlarged: list[Path] = []
    cropped: list[Path] = []
    for sample in samples:
        bucket = bucket_for(sample.width_px, sample.height_px, config)
        width, height = resized_size(sample.width_px, sample.height_px, bucket, config)
        # Both sides grow alike, so one tells.
        if width > _ENLARGED * sample.width_px:
            enlarged.append(sample.image)
        if 1 - bucket.width_px * bucket.height_px / (width * height) > _CROPPED:
            cropped.append(sample.image)
    size = "{}×{} px".format(*config.resolution_px)
    found = [
        ("small", small, f"{plural(len(small))} below {SMALL_PX} px: fewer details to learn from."),
        (
            "enlarged",
            enlarged,
            f"{named(enlarged)}: enlarged to train at {size}, which teaches blur.",
        ),
        ("cropped", cropped, f"{named(cropped)}: more than a fifth is cropped away at {size}."),
    ]
    return [Finding(kind, tuple(pictures), sentence) for kind, pictures, sentence in found if pictures]


def is_small(sample: Sample) -> bool:
    """Whether the shorter side is below what the guide asks for."""
    return min(sample.width_px, sample.height_px) < SMALL_PX

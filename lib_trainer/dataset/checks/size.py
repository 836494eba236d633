"""Pictures that are small, enlarged or much cropped at the chosen resolution. Known from the scan alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib_trainer.config.recipe import DatasetConfig
from lib_trainer.dataset.buckets import bucket_for, cut_share, resized_size
from lib_trainer.dataset.checks.finding import Finding, named, plural
from lib_trainer.dataset.samples import Sample

# The presets train at up to 896 × 896: smaller pictures teach fewer details.
SMALL_PX = 768
# Enlarged by so much, or so much cropped away, that it shows.
_ENLARGED, _CROPPED = 1.1, 0.2


def check_size(samples: Sequence[Sample], config: DatasetConfig) -> list[Finding]:
    """Findings `small`, `enlarged` and `cropped`."""
    small = [sample.image for sample in samples if is_small(sample)]
    # Picture -> how many times as wide, and the share that is left out.
    enlarged: dict[Path, float] = {}
    cropped: dict[Path, float] = {}
    for sample in samples:
        size_px = sample.width_px, sample.height_px
        bucket = bucket_for(*size_px, config)
        # Both sides grow alike, so one tells.
        times = resized_size(*size_px, bucket, config)[0] / sample.width_px
        if times > _ENLARGED:
            enlarged[sample.image] = times
        if (share := cut_share(*size_px, bucket, config)) > _CROPPED:
            cropped[sample.image] = share
    size = "{}×{} px".format(*config.resolution_px)
    most_times, most_cut = max(enlarged.values(), default=0), max(cropped.values(), default=0)
    found = [
        ("small", small, f"{plural(len(small))} below {SMALL_PX} px: fewer details to learn from."),
        (
            "enlarged",
            enlarged,
            f"{named(list(enlarged))}: enlarged {most_times:.1f} times at most to train at {size}, which teaches blur.",
        ),
        ("cropped", cropped, f"{named(list(cropped))}: {most_cut:.0%} at most is cropped away at {size}."),
    ]
    return [Finding(kind, tuple(pictures), sentence) for kind, pictures, sentence in found if pictures]


def is_small(sample: Sample) -> bool:
    """Whether the shorter side is below what the guide asks for."""
    return min(sample.width_px, sample.height_px) < SMALL_PX

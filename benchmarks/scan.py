"""How long a large folder takes until a person sees what it holds: scanned, bucketed and listed."""

from __future__ import annotations

import io
import random
import time
import tracemalloc
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from benchmarks.report import mebibytes, say, table
from lib_trainer.config.recipe import DatasetConfig, Recipe
from lib_trainer.dataset.buckets import Bucket
from lib_trainer.dataset.sampler import Schedule
from lib_trainer.dataset.scan import scan_folder

_SIDES_PX = (512, 640, 768, 832, 960, 1024)


@dataclass(frozen=True)
class ScanTime:
    """Wall seconds from the folder's name to its buckets, and the peak of Python's memory."""

    pictures: int
    seconds: float
    peak_bytes: int


def time_scan(folder: Path, pictures: int) -> ScanTime:
    """Fills `folder` with so many pictures and captions, and scans it twice: for time, and for memory."""
    make_pictures(folder / "1_word", pictures)
    started = time.perf_counter()
    _scan(folder)
    seconds = time.perf_counter() - started
    tracemalloc.start()
    try:
        _scan(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return ScanTime(pictures, seconds, peak)


def make_pictures(folder: Path, count: int) -> None:
    """JPEGs of several shapes, each with a caption; the contents are the same, as a scan reads headers only."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, encoded = random.Random(0), {}
    for number in range(count):
        size = rng.choice(_SIDES_PX), rng.choice(_SIDES_PX)
        if size not in encoded:
            stream = io.BytesIO()
            Image.new("RGB", size, "gray").save(stream, "JPEG")
            encoded[size] = stream.getvalue()
        (folder / f"{number:06}.jpg").write_bytes(encoded[size])
        (folder / f"{number:06}.txt").write_text(f"word, picture {number}")


def report_scan(found: list[ScanTime]) -> None:
    say("\nA folder of JPEGs with captions: scanned, bucketed and listed\n")
    rows = [
        [
            f"{item.pictures:,}",
            f"{item.seconds:.2f}",
            mebibytes(item.peak_bytes),
            f"{item.peak_bytes / item.pictures:.0f}",
        ]
        for item in found
    ]
    say(table(["pictures", "seconds", "peak of Python's memory, MiB", "bytes a picture"], rows))


def _scan(folder: Path) -> tuple[list[tuple[str, Bucket]], Counter[Bucket]]:
    config = DatasetConfig(train_data_dir=str(folder))
    scan = scan_folder(config)
    schedule = Schedule(scan, Recipe(dataset=config))
    counts = Counter(schedule.buckets)
    listed = [(sample.image.name, bucket) for sample, bucket in zip(scan.samples, schedule.buckets, strict=True)]
    return listed, counts

"""What is kept of the pictures of a large folder while it is checked."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_trainer.dataset.checks import duplicates, pictures
from lib_trainer.dataset.checks.measure import measure
from lib_trainer.dataset.samples import Sample

SAMPLE = Sample(Path("a.png"), "", 1, 9, 9, False)


ONE = measure(Image.new("RGB", (48, 48)), None, with_parts=False)


def drawn(number):
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (40, 40, 3)).astype(np.uint8)
    return replace(ONE, small=small, hashes=rng.integers(0, 256, (8, 8)).astype(np.uint8))


def gathered(count):
    found = pictures.Pictures()
    for number in range(count):
        found.add(SAMPLE, drawn(number))
    return found


def test_a_picture_of_a_large_folder_takes_less_than_a_kilobyte(monkeypatch):
    monkeypatch.setattr(pictures, "_IN_MEMORY", 64)
    found = gathered(128)
    tracemalloc.start()
    for number in range(128, 512):
        found.add(SAMPLE, drawn(number))
    grown_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # With the room that is kept for more; the small copies alone are 4.8 kB each.
    assert grown_bytes / 384 < 1000
    for number in (0, 63, 64, 511):
        assert np.array_equal(found.small(number), drawn(number).small)
        assert np.array_equal(found.column("hashes")[number], drawn(number).hashes)
    found.close()


@pytest.mark.parametrize("written", [0, OSError(28, "No space left on device")])
def test_a_full_disk_costs_memory_and_no_finding(monkeypatch, written):
    class Full:
        """A file that takes nothing more."""

        def __init__(self, **_how):
            pass

        def seek(self, _place):
            pass

        def write(self, _data):
            if isinstance(written, OSError):
                raise written
            return written

    monkeypatch.setattr(pictures, "_IN_MEMORY", 2)
    monkeypatch.setattr(pictures, "TemporaryFile", Full)
    found = gathered(4)
    assert np.array_equal(found.small(3), drawn(3).small)


def test_pictures_of_other_colours_are_not_compared(monkeypatch):
    """Eight colours, each far from the others: as many small comparisons, and no large one."""
    shades = np.repeat(np.arange(8) * 20.0, 100)[:, None] * np.ones((1, 6))
    everyone = np.random.default_rng(0).permutation(800)
    blocks = list(duplicates._alike_in_colour(shades, everyone, everyone))
    assert sorted(place for ours, _ in blocks for place in ours.tolist()) == list(range(800)), "each once"
    assert sum(len(ours) * len(theirs) for ours, theirs in blocks) < 800 * 250
    for ours, theirs in blocks:
        same = {place for place in range(800) if any(abs(shades[place, 0] - shades[one, 0]) < 1 for one in ours)}
        assert same <= set(theirs.tolist())

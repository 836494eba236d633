"""All checks of a folder, as a stream: what names and sizes tell comes at once, what needs pixels as it is measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from PIL import Image

from lib_trainer.config.recipe import DatasetConfig
from lib_trainer.dataset.checks.blur import check_blur
from lib_trainer.dataset.checks.captions import check_captions
from lib_trainer.dataset.checks.count import check_count
from lib_trainer.dataset.checks.duplicates import MOST_WITH_PARTS, check_duplicates
from lib_trainer.dataset.checks.exposure import check_exposure
from lib_trainer.dataset.checks.faces import face_finder
from lib_trainer.dataset.checks.finding import Finding
from lib_trainer.dataset.checks.measure import MEASURED_PX, Measured, measure
from lib_trainer.dataset.checks.pictures import Pictures
from lib_trainer.dataset.checks.size import check_size
from lib_trainer.dataset.checks.variety import check_variety
from lib_trainer.dataset.images import UnreadablePicture, shown_name
from lib_trainer.dataset.samples import Sample
from lib_trainer.dataset.scan import Scan
from lib_trainer.dataset.thumbnails import read_small
from lib_trainer.errors import UserError
from lib_trainer.events import Progress
from lib_trainer.utils.prefetch import prefetched

_THREADS = 4

# A picture's file -> a small RGB copy of it. Raises UserError.
ReadSmall = Callable[[Path], Image.Image]


def check_folder(
    scan: Scan, config: DatasetConfig, kind: str = "", read: ReadSmall | None = None
) -> Iterator[Finding | Progress]:
    """Everything worth saying about a folder.

    Args:
        kind: `face`, `style`, or "" where it is not known: what the guide asks for depends on it.
        read: gives the small copies; by default they are decoded anew.

    Yields:
        Findings, a Progress `checking` after each picture, and Progress `comparing` while duplicates are looked for.
    """
    # Regularisation pictures are of the class: neither the guide's number nor the trigger word is theirs.
    own = [sample for sample in scan.samples if not sample.regularising]
    yield from check_count(len(own), kind)
    yield from check_captions(own, scan.trigger_word)
    yield from check_size(scan.samples, config)
    with closing(Pictures()) as pictures:
        yield from _look_at(scan, read or (lambda path: read_small(path, MEASURED_PX)), pictures)
        yield from check_duplicates(pictures)
        yield from check_blur(pictures)
        yield from check_exposure(pictures)
        yield from check_variety(pictures.without_regularisation(), kind)


def _look_at(scan: Scan, read: ReadSmall, pictures: Pictures) -> Iterator[Finding | Progress]:
    """Fills `pictures`. Yields a Progress each, then what cannot be read."""
    unreadable: list[Path] = []
    for sample, measured in _measured(scan, read):
        if measured is None:
            unreadable.append(sample.image)
        else:
            pictures.add(sample, measured)
        yield Progress("checking", len(pictures) + len(unreadable), len(scan.samples), shown_name(sample.image))
    for path in unreadable:
        yield Finding("unreadable", (path,), f"{shown_name(path)} cannot be read: the run leaves it out.")


def _measured(scan: Scan, read: ReadSmall) -> Iterator[tuple[Sample, Measured | None]]:
    """Each sample with its numbers, in order; None where it cannot be decoded."""
    faces, with_parts = face_finder(), len(scan.samples) <= MOST_WITH_PARTS

    def look(sample: Sample) -> Measured | None:
        try:
            return measure(read(sample.image), faces, with_parts=with_parts)
        except (UnreadablePicture, UserError):
            return None

    workers = min(_THREADS, os.cpu_count() or 1)
    with closing(prefetched(scan.samples, look, workers=workers, ahead=2 * workers)) as measured:
        for sample, future in measured:
            yield sample, future.result()

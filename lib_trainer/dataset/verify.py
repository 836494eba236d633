"""Decodes what a scan lists: a truncated picture has a whole header, and cannot be trained on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from PIL.Image import Image

from lib_trainer.dataset.folders import Skipped
from lib_trainer.dataset.images import UnreadablePicture, open_picture
from lib_trainer.dataset.scan import Scan, nothing_usable
from lib_trainer.utils.background import start_background

# What is decoded before a scan is shown; of a larger folder the rest is decoded in the background.
AT_ONCE = 64
_DECODERS = 4

# A file: path, bytes, time of change.
_Key = tuple[Path, int, int]


@dataclass(frozen=True)
class Verified:
    """A scan without the pictures that are known not to decode.

    Attributes:
        scan: its `skipped` names them.
        decoded, total: pictures that were decoded so far, and those of the folder.
    """

    scan: Scan
    decoded: int
    total: int


class PictureVerifier:
    """What is known of picture files; one for a process, so that a file is decoded once however often it is listed.

    Args:
        reader: decodes a file, or has done so before: `Thumbnails.read` keeps what comes of it.
    """

    def __init__(self, at_once: int = AT_ONCE, reader: Callable[[Path], Image] | None = None) -> None:
        self._at_once, self._reader = at_once, reader
        # file -> why it cannot be decoded, "" where it can.
        self._known: dict[_Key, str] = {}
        self._lock = threading.Lock()
        self._waiting: list[Path] = []
        self._thread: threading.Thread | None = None

    def verify(self, scan: Scan, root: str, *, continues: bool = True) -> Verified:
        """The scan of the folder `root` with what is known by now; decodes at most `at_once` pictures before.

        Args:
            continues: the other pictures are decoded in the background; else somebody looks at them by `read`.

        Raises:
            UserError: no picture is left.
        """
        missing = [sample.image for sample in scan.samples if self._reason(sample.image) is None]
        # JPEG decoding releases the interpreter's lock, so threads suffice.
        with ThreadPoolExecutor(max_workers=_DECODERS) as pool:
            list(pool.map(self._decode, missing[: self._at_once]))
        self._continue_with(missing[self._at_once :] if continues else [])
        found = [(sample, self._reason(sample.image)) for sample in scan.samples]
        good = tuple(sample for sample, reason in found if not reason)
        broken = [Skipped(sample.image, reason) for sample, reason in found if reason]
        skipped = [*scan.skipped, *broken]
        if not good:
            raise nothing_usable(Path(root), skipped)
        decoded = sum(reason is not None for _, reason in found)
        return Verified(replace(scan, samples=good, skipped=tuple(skipped)), decoded, len(found))

    def wait(self) -> None:
        """Until the background has decoded everything that is waiting."""
        thread = self._thread
        if thread:
            thread.join()

    def _continue_with(self, pictures: list[Path]) -> None:
        """Decodes these in the background, instead of those of a folder that was listed before."""
        with self._lock:
            self._waiting = pictures[::-1]
            if pictures and (self._thread is None or not self._thread.is_alive()):
                self._thread = start_background(self._decode_waiting, self._forget_waiting, "verify pictures")

    def _forget_waiting(self) -> None:
        with self._lock:
            self._waiting = []

    def _decode_waiting(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    # Set under the lock: a scan that comes now starts another thread.
                    self._thread = None
                    return
                picture = self._waiting.pop()
            self._decode(picture)

    def read(self, picture: Path) -> Image:
        """The picture as the reader gives it; what comes of it is known from then on. Raises UnreadablePicture."""
        # Asked before: a file that changes meanwhile is decoded again.
        key = _key_of(picture)
        try:
            found = (self._reader or open_picture)(picture)
        except UnreadablePicture as error:
            self._learn(key, error.reason)
            raise
        self._learn(key, "")
        return found

    def _learn(self, key: _Key, reason: str) -> None:
        with self._lock:
            self._known[key] = reason

    def _decode(self, picture: Path) -> None:
        with suppress(UnreadablePicture):
            self.read(picture)

    def _reason(self, picture: Path) -> str | None:
        """Why a picture cannot be decoded, "" where it can, None where that is not known."""
        key = _key_of(picture)
        with self._lock:
            return self._known.get(key)


def _key_of(picture: Path) -> _Key:
    try:
        found = picture.stat()
    except OSError:
        return picture, -1, -1
    return picture, found.st_size, found.st_mtime_ns

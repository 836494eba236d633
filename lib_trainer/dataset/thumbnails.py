"""Small copies of pictures, kept as files, so that a folder of thousands is decoded once."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from PIL import Image

from lib_trainer.dataset.images import UnreadablePicture, decode_picture, read_picture
from lib_trainer.utils.atomic_file import replace_file

UNUSED_DAYS = 60.0
_FORMAT_VERSION = 1


def read_small(path: Path, side_px: int) -> Image.Image:
    """The picture in RGB with no side above `side_px`. Raises UnreadablePicture."""
    picture = decode_picture(read_picture(path), path)
    picture.thumbnail((side_px, side_px), Image.Resampling.BOX, reducing_gap=2.0)
    return picture


class Thumbnails:
    """Small copies under `folder`, made when they are asked for.

    A copy is known by the picture's path, size and time of change, so one that was edited is made anew.
    """

    def __init__(self, folder: Path, side_px: int) -> None:
        self._folder, self._side_px = folder, side_px

    def read(self, path: Path) -> Image.Image:
        """As `read_small`."""
        return Image.open(BytesIO(self.jpeg(path))).convert("RGB")

    def jpeg(self, path: Path) -> bytes:
        """The copy as the bytes of a JPEG file. Raises UnreadablePicture."""
        kept = self._kept(path)
        with suppress(OSError):
            data = kept.read_bytes()
            os.utime(kept)
            return data
        data = BytesIO()
        read_small(path, self._side_px).save(data, "JPEG", quality=88)
        # A full or read-only disk costs time, not the picture.
        with suppress(OSError):
            replace_file(kept, data.getvalue())
        return data.getvalue()

    def prune(self, unused_days: float = UNUSED_DAYS) -> None:
        """Removes copies that nobody has looked at for this many days."""
        before = time.time() - unused_days * 86400
        for path in self._folder.glob("*/*.jpg"):
            with suppress(OSError):
                if path.stat().st_mtime < before:
                    path.unlink()

    def _kept(self, path: Path) -> Path:
        try:
            about = path.stat()
        except OSError as error:
            raise UnreadablePicture(path, error.strerror or str(error)) from error
        facts = f"{_FORMAT_VERSION}\0{self._side_px}\0{path.resolve()}\0{about.st_size}\0{about.st_mtime_ns}"
        key = hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()
        return self._folder / key[:2] / f"{key}.jpg"

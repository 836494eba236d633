"""Pillow under our own settings: which decoders see a file, and that a truncated picture is an error.

Pillow's settings belong to the whole process, and extensions of a WebUI change them: a tagger sets
`LOAD_TRUNCATED_IMAGES`, with which half a jpeg is a picture with a grey lower half.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import lru_cache
from typing import BinaryIO

from PIL import Image, ImageFile

# Pillow's own limit for an error, which a host may have switched off.
MAX_PIXELS = 178_956_970

# Only these decoders see the bytes, whatever the file claims to be.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "HEIF")
# Pillow has AVIF from 11.3 on; HEIC needs the package pillow-heif.
_OPTIONAL = {".avif": "AVIF", ".heic": "HEIF", ".heif": "HEIF"}


class _TruncatedIsAnError:
    """While any thread is inside, a truncated picture raises; afterwards Pillow is set as it was found."""

    def __init__(self) -> None:
        self._lock, self._inside, self._found = threading.Lock(), 0, False

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._found = ImageFile.LOAD_TRUNCATED_IMAGES
            self._inside += 1
            ImageFile.LOAD_TRUNCATED_IMAGES = False

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._inside -= 1
            # Another extension may be imported meanwhile and set it: then it stays set.
            if not self._inside:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._found or ImageFile.LOAD_TRUNCATED_IMAGES


# One for the process, as the setting is: the decoding threads must not restore it under each other.
truncated_is_an_error = _TruncatedIsAnError()


def open_header(stream: BinaryIO) -> Image.Image:
    """The picture with only its header read. Raises what Pillow raises, and ValueError for too many pixels."""
    image = Image.open(stream, formats=readable_formats())
    width, height = image.size
    # Checked on the header, before the decoder allocates memory for the pixels.
    if width < 1 or height < 1 or width * height > MAX_PIXELS:
        raise ValueError(f"{width}×{height} px is more than the {MAX_PIXELS // 10**6} million pixels that are read")
    return image


@lru_cache(maxsize=1)
def readable_formats() -> tuple[str, ...]:
    """Those of our formats for which this Pillow, with pillow-heif where that is installed, has a decoder."""
    with suppress(ImportError):
        from pillow_heif import register_heif_opener

        register_heif_opener()
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def missing_decoder(ending: str) -> str:
    """Why pictures of this ending cannot be decoded here; "" where they can, or the ending needs nothing."""
    name = _OPTIONAL.get(ending)
    if name is None or name in readable_formats():
        return ""
    needed = "Pillow 11.3" if name == "AVIF" else "the package pillow-heif"
    return f"{ending[1:]} pictures need {needed}"

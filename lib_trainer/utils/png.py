"""PNG files that say what was drawn, as "PNG Info" reads them."""

from __future__ import annotations

import json
from io import BytesIO
from typing import TYPE_CHECKING

from PIL.Image import Image
from PIL.PngImagePlugin import PngInfo

if TYPE_CHECKING:
    from PIL.Image import Image


def png_bytes(picture: Image, infotext: str, **more: str) -> bytes:
    """A PNG with its infotext, and `more` texts beside it."""
    about = PngInfo()
    # As WebUIs write it: a plain text chunk where Latin-1 can hold it, an international one elsewhere.
    for key, text in {INFOTEXT_KEY: infotext, **more}.items():
        about.add_text(key, text)
    content = BytesIO()
    picture.save(content, "PNG", pnginfo=about)
    return content.getvalue()


INFOTEXT_KEY = "parameters"
"""Under this key of `Image.info`, and of a PNG file, stands a picture's infotext."""


def quoted(value: str) -> str:
    """A value as the WebUIs write it into an infotext: in JSON quotes where it would break the list of settings."""
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ',\n:"') else value

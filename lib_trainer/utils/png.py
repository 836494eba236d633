"""PNG files with an infotext, as the WebUIs' "PNG Info" reads them."""

from __future__ import annotations

import json
from io import BytesIO

from PIL.Image import Image
from PIL.PngImagePlugin import PngInfo

INFOTEXT_KEY = "parameters"
"""Key of an image's infotext, in `Image.info` and in a PNG file."""


def png_bytes(picture: Image, infotext: str, **more: str) -> bytes:
    """A PNG with its infotext, and `more` texts under their names."""
    about = PngInfo()
    # Pillow chooses as the WebUIs do: a tEXt chunk where Latin-1 can hold it, iTXt elsewhere.
    for key, text in {INFOTEXT_KEY: infotext, **more}.items():
        about.add_text(key, text)
    content = BytesIO()
    picture.save(content, "PNG", pnginfo=about)
    return content.getvalue()


def quoted(value: str) -> str:
    """A value as the WebUIs write it into an infotext: in JSON quotes where it would break the list of settings."""
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ',\n:"') else value

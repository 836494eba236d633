"""Pieces of HTML that several panels show: a progress bar, a small picture, a time."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def progress_bar(done: int, total: int) -> str:
    share = min(100.0, 100 * done / total)
    return (
        f'<div class="bar" role="progressbar" aria-valuemin="0" aria-valuemax="{total}" aria-valuenow="{done}">'
        f'<div style="width:{share:.1f}%"></div></div>'
    )


def thumbnail(picture: Image, side_px: int, *, is_square: bool = False) -> str:
    """A small JPEG as a data address, which no WebUI's rules for files forbid.

    Args:
        side_px: of the longer side. A smaller picture keeps its size: the page enlarges it pixel for pixel.
        is_square: cut to a square of exactly that side.
    """
    # Imported late: a page that is only opened shows no picture.
    from PIL.Image import Resampling
    from PIL.ImageOps import fit

    if is_square:
        small = fit(picture, (side_px, side_px), Resampling.BILINEAR)
    else:
        small = picture.convert("RGB")
        small.thumbnail((side_px, side_px), Resampling.BILINEAR)
    data = BytesIO()
    small.save(data, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{b64encode(data.getvalue()).decode()}"


def show_duration(seconds: float) -> str:
    """A time as a person says it: `40 s`, `6 min`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"

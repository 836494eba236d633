"""Pictures that are too bright or too dark to show what they hold, and grey ones among colour."""

from __future__ import annotations

from lib_trainer.dataset.checks.finding import Finding, named
from lib_trainer.dataset.checks.pictures import Pictures

_CLIPPED, _BRIGHTEST_OF_DARK = 0.4, 0.3
_GREY = 0.06


def check_exposure(pictures: Pictures) -> list[Finding]:
    """Findings `bright`, `dark` and `grey`. A white backdrop is not overexposed."""
    bright = pictures.images(pictures.column("clipped") > _CLIPPED)
    dark = pictures.images(pictures.column("bright") < _BRIGHTEST_OF_DARK)
    grey = pictures.images(pictures.column("colourfulness") < _GREY)
    found = []
    if bright:
        found.append(Finding("bright", bright, f"Overexposed: {named(bright)}."))
    if dark:
        found.append(Finding("dark", dark, f"Underexposed: {named(dark)}."))
    # A set of drawings in black and white is meant to be one.
    if grey and len(grey) * 2 < len(pictures):
        found.append(Finding("grey", grey, f"Greyscale among colour pictures: {named(grey)}."))
    return found

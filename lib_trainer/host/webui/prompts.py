"""Captions without the WebUIs' prompt syntax, and their cached conditioning."""

from __future__ import annotations

import re

_ESCAPED_BRACKET = re.compile(r"\\([()\[\]])")


def literal_caption(caption: str) -> str:
    """A caption's very words: brackets that were escaped for the prompt syntax lose their backslash."""
    return _ESCAPED_BRACKET.sub(r"\1", caption)


def forget_prompts() -> None:
    """Drops the cached conditioning of the last prompts, which knows LoRAs by name only."""
    from modules import processing

    for kind in (
        processing.StableDiffusionProcessing,
        processing.StableDiffusionProcessingTxt2Img,
        processing.StableDiffusionProcessingImg2Img,
    ):
        for cache in ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc"):
            if hasattr(kind, cache):
                setattr(kind, cache, [None] * len(getattr(kind, cache)))

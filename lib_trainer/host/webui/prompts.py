"""Captions without the WebUIs' prompt syntax, and their cached conditioning."""

from __future__ import annotations

import re

_ESCAPED_BRACKET = re.compile(r"\\([()\[\]])")


def literal_caption(caption: str) -> str:
    r"""A caption as plain text: taggers write `\(`, which the prompt syntax needs and CLIP should not see."""
    return _ESCAPED_BRACKET.sub(r"\1", caption)


def forget_prompts() -> None:
    """Drops the conditioning of the last prompts: the WebUI keys it by text, so a rewritten LoRA would not show."""
    from modules import processing

    for kind in (
        processing.StableDiffusionProcessing,
        processing.StableDiffusionProcessingTxt2Img,
        processing.StableDiffusionProcessingImg2Img,
    ):
        # Class attributes, shared by all jobs; the hires ones exist on some classes only.
        for cache in ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc"):
            if hasattr(kind, cache):
                setattr(kind, cache, [None] * len(getattr(kind, cache)))

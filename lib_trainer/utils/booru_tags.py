"""Booru tags as prompts take them."""

from __future__ import annotations

import re

# Emoticons keep their underscores.
_FACE = re.compile(r"[^a-z0-9]+_[^a-z0-9]+|[a-z0-9]_[a-z0-9]|\d_\d", re.IGNORECASE)
_BRACKET = re.compile(r"([()\[\]])")


def spelled_out(tag: str) -> str:
    """`blue_eyes` -> `blue eyes`, `rin_(vocaloid)` -> `rin \\(vocaloid\\)`."""
    text = tag if _FACE.fullmatch(tag) else tag.replace("_", " ")
    return _BRACKET.sub(r"\\\1", text)

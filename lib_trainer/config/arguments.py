"""Options as kohya writes them: `betas=0.9,0.99 d_coef=2 weight_decay=0.01`."""

from __future__ import annotations

import ast
import shlex
from typing import Any

_MAX_CHARACTERS = 2000


def parse_arguments(text: str) -> dict[str, Any]:
    """`betas=0.9,0.99 decouple=True` -> {"betas": (0.9, 0.99), "decouple": True}; what is not a Python literal is text.

    Raises:
        ValueError: for a part without a name or a value, with a sentence's end like "'x' has no value".
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"is longer than {_MAX_CHARACTERS} characters")
    found = {}
    for part in shlex.split(text):
        name, sign, value = part.partition("=")
        if not (sign and value and name.isidentifier()):
            raise ValueError(f"{part[:60]!r} is not like name=value")
        found[name] = _literal(value)
    return found


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value

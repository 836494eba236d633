"""The output of a command: its answer on stdout, everything else on stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What came out of a command: `values` for programs, `lines` for people."""

    values: Mapping[str, Any]
    lines: tuple[str, ...] = ()


def answer(result: Answer, *, as_json: bool) -> None:
    """The answer on stdout: one JSON object on one line, or lines to read."""
    # One line, so that a caller can take the last line of whatever was printed.
    # Letters that the console lacks are escaped in JSON: replaced, a path would lead nowhere.
    escaped = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") != "utf8"
    text = json.dumps(result.values, default=_plain, ensure_ascii=escaped) if as_json else "\n".join(result.lines)
    if text:
        sys.stdout.write(printable(text) + "\n")
        # A pipe may be closed before the interpreter ends.
        sys.stdout.flush()


def say(text: str) -> None:
    """A line on stderr."""
    sys.stderr.write(printable(text) + "\n")


def printable(text: str) -> str:
    """Text without control characters: a file's name or a caption must not command the terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)


def _plain(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")

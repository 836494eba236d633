"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lib_trainer.errors import NotWritten

# Windows refuses to replace a file that another program holds open, as a WebUI does for a moment while it reads one.
HELD_SECONDS, _RETRY_SECONDS = 3.0, 0.1


def replace_file(path: Path, content: bytes) -> None:
    """Writes under another name, flushes to the disk, and renames over `path`; its folder is made if need be.

    Raises:
        OSError: when that cannot be done; what stood at `path` still does, and nothing else is left behind.
    """
    replace_with(path, lambda part: part.write_bytes(content))


def replace_with(path: Path, write: Callable[[Path], object]) -> None:
    """As `replace_file`, for content that `write` puts into a file that does not exist yet."""
    part = part_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        _replace_when_free(part, path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _replace_when_free(part: Path, path: Path) -> None:
    """Renames `part` over `path`; while another program holds `path`, tries again for HELD_SECONDS."""
    deadline = time.monotonic() + HELD_SECONDS
    while True:
        try:
            os.replace(part, path)
            return
        except PermissionError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_RETRY_SECONDS)


def part_of(path: Path) -> Path:
    """Where the content of `path` stands until it is whole; left behind only by a crash."""
    return path.with_name(f".{path.name}.part")


def write_whole(path: Path, content: bytes) -> None:
    """`replace_file` for what a person asked for. Raises NotWritten."""
    try:
        replace_file(path, content)
    except OSError as error:
        message = f"{path.name} could not be written: {error.strerror or error}."
        raise NotWritten(message, f"Make room in {path.parent}, or choose a folder that can be written to.") from error

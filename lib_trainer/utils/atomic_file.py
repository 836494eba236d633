"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lib_trainer.errors import UserError


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
        os.replace(part, path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def part_of(path: Path) -> Path:
    """Where the content of `path` stands until it is whole; left behind only by a crash."""
    return path.with_name(f".{path.name}.part")


def write_whole(path: Path, content: bytes) -> None:
    """`replace_file` for what a person asked for. Raises UserError when it cannot be written."""
    try:
        replace_file(path, content)
    except OSError as error:
        message = f"{path.name} could not be written: {error.strerror or error}."
        raise UserError(message, f"Make room in {path.parent}, or choose a folder that can be written to.") from error

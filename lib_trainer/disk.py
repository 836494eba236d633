"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from lib_trainer.errors import UserError


def replace_file(path: Path, content: bytes) -> None:
    """Writes under another name, flushes to the disk, and renames over `path`; its folder is made if need be.

    Raises:
        OSError: when that cannot be done; what stood at `path` still does, and nothing else is left behind.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes) -> None:
    """`replace_file` for what a person asked for. Raises UserError when it cannot be written."""
    try:
        replace_file(path, content)
    except OSError as error:
        message = f"{path.name} could not be written: {error.strerror or error}."
        raise UserError(message, f"Make room in {path.parent}, or choose a folder that can be written to.") from error

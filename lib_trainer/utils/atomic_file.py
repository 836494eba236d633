"""Atomic writes: a reader sees the old file or the new one, never a part."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from lib_trainer.errors import NotWritten

# Windows refuses to replace a file that another program holds open, as a WebUI does for a moment while it reads one.
HELD_SECONDS, _RETRY_SECONDS = 3.0, 0.1


def replace_file(path: Path, content: bytes) -> None:
    """Writes under another name, flushes to the disk, and renames over `path`; makes its folder.

    Raises:
        OSError: nothing was written; the old file is still there, and no part is left behind.
    """
    replace_with(path, lambda part: part.write_bytes(content))


def replace_with(path: Path, write: Callable[[Path], object]) -> None:
    """As `replace_file`, for content that `write` puts into a file that does not exist yet."""
    part = partial_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        # Without fsync a power cut after the rename can leave an empty file under the final name.
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        _replace_when_free(part, path)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def require_writable(folder: Path) -> None:
    """Makes the folder if need be. Raises NotWritten where no file can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, prefix=".", suffix=".part"):
            pass
    except OSError as error:
        message = f"Nothing can be written into {folder}: {error.strerror or error}."
        raise NotWritten(message, "Make it writable, or choose another folder.") from error


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


def partial_path(path: Path) -> Path:
    """Where the content of `path` lies until it is complete. Only a crash leaves it behind."""
    return path.with_name(f".{path.name}.part")


def write_atomically(path: Path, content: bytes) -> None:
    """`replace_file` for a file that a person asked for. Raises NotWritten."""
    try:
        replace_file(path, content)
    except OSError as error:
        message = f"{path.name} could not be written: {error.strerror or error}."
        raise NotWritten(message, f"Free space in {path.parent}, or choose a folder with write access.") from error

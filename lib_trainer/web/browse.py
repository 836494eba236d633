"""Folders to choose from, below those that a page may name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lib_trainer.errors import UserError
from lib_trainer.host.access import Access

_MOST_LISTED = 500


def browse(access: Access, named: str) -> dict[str, Any]:
    """What a page shows of a folder: its path, the folder above it, and the folders in it.

    Args:
        named: the folder; "" lists where one may begin.

    Returns:
        `folder` and `above` as paths, "" where there is none; `folders` with the `name` and `path` of each.

    Raises:
        UserError: there is no such folder, it cannot be listed, or the page may not name it.
    """
    text = named.strip().strip("\"'")
    if not text:
        starts = access.folders or ((Path.home(),) if access.local_only else ())
        return {"folder": "", "above": "", "folders": [_described(path, str(path)) for path in starts if path.is_dir()]}
    try:
        folder = Path(text).expanduser() if access.local_only else access.folder(text)
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except (OSError, ValueError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"{text} cannot be opened: {reason}.", "Choose another folder.") from error
    below = [_described(folder / name, name) for name in names[:_MOST_LISTED]]
    return {"folder": str(folder), "above": _above(access, folder), "folders": below}


def _above(access: Access, folder: Path) -> str:
    """The folder above, "" where the page may not name it."""
    try:
        above = folder.parent if access.local_only else access.folder(str(folder.parent))
    except UserError:
        return ""
    return "" if above == folder else str(above)


def _described(path: Path, name: str) -> dict[str, str]:
    # Names that are no text in any encoding cannot be typed into a page either.
    return {"name": name.encode("utf-8", "replace").decode(), "path": str(path).encode("utf-8", "replace").decode()}

"""Paths as people type them."""

from __future__ import annotations

from pathlib import Path

from lib_trainer.errors import UserError


def read_path(text: str) -> Path:
    """A path, with `~` for the home folder also where the shell leaves it alone, as in --out=~/loras.

    Raises:
        UserError: `~name` of a person that this system does not know.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"There is no home folder for {text}.", "Write the whole path.") from error

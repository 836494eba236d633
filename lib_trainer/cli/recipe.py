"""Recipes and settings as they are named on the command line, for commands that need no model too."""

from __future__ import annotations

import os
from pathlib import Path

from lib_trainer.errors import UserError
from lib_trainer.recipes.files import load_recipe, presets
from lib_trainer.recipes.loaded import LoadedRecipe


def open_recipe(name: str) -> LoadedRecipe:
    """A file, or a shipped recipe by the name of its file with or without `.json`."""
    shipped = {path.stem: path for path in presets().values()}
    path = Path(os.path.expanduser(name))
    # A file of that name in the current folder wins over a shipped recipe.
    if not path.exists() and path.stem in shipped:
        return load_recipe(shipped[path.stem])
    return load_recipe(path)


def parse_settings(settings: list[str]) -> dict[str, str]:
    """`["epoch=3"]` -> `{"epoch": "3"}`. Raises UserError for one without an equals sign."""
    for setting in settings:
        if "=" not in setting:
            raise UserError(f"--set {setting} changes nothing.", "Write --set key=value.")
    return dict(setting.split("=", 1) for setting in settings)

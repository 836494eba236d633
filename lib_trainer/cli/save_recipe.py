"""`save-recipe`: a recipe written to a file, in our format or kohya_ss'."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from lib_trainer.cli.output import Answer
from lib_trainer.cli.recipe import open_recipe, parse_settings
from lib_trainer.recipes.files import save_object, save_recipe
from lib_trainer.recipes.kohya_write import kohya_values


def run_save_recipe(options: argparse.Namespace) -> Answer:
    """Writes the file and answers with its path. Raises ConfigError for every value that is wrong."""
    loaded = open_recipe(options.recipe)
    recipe = loaded.complete(parse_settings(options.set), needs_name=False)
    path, notices = Path(os.path.expanduser(options.file)), loaded.notices
    if options.format == "kohya":
        values, lost = kohya_values(recipe)
        notices = (*notices, *lost)
        save_object(path, values)
    else:
        save_recipe(path, recipe)
    return Answer({"path": path, "notices": notices}, (f"{path} is written.", *notices))

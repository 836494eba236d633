"""Recipes as files: the shipped ones, a person's own, other trainers', and what an adapter file says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib_trainer.adapter.metadata import RECIPE_KEY
from lib_trainer.config.recipe import Recipe, field_types
from lib_trainer.errors import UserError
from lib_trainer.recipes.formats import recognize
from lib_trainer.recipes.kohya_gui import read_gui
from lib_trainer.recipes.kohya_metadata import gui_settings
from lib_trainer.recipes.kohya_table import KOHYA_ALIASES
from lib_trainer.recipes.loaded import LoadedRecipe, recipe_of
from lib_trainer.recipes.onetrainer import read_onetrainer
from lib_trainer.recipes.reading import Reading, shown_names
from lib_trainer.recipes.sd_scripts import read_sd_scripts
from lib_trainer.recipes.source import only_text, parse_json, read_adapter_metadata, read_object
from lib_trainer.utils.atomic_file import write_atomically

PRESET_DIR = Path(__file__).resolve().parents[2] / "presets"
PRESET_LABELS = {
    "loha_face_config_8gb": "Face · LoHa · 8 GB",
    "lokr_style_config_8gb": "Style · LoKr · 8 GB",
    "loha_face_flow_8gb": "Face · LoHa · Flux, Z-Image … · 8 GB",
    "lokr_style_flow_8gb": "Style · LoKr · Flux, Z-Image … · 8 GB",
    "slider_config_8gb": "Slider · from prompts",
    "difference_config_8gb": "Difference · from pairs",
}


def presets() -> dict[str, Path]:
    """Label -> file of every shipped recipe; the face recipe comes first."""
    known = {stem: place for place, stem in enumerate(PRESET_LABELS)}
    paths = sorted(PRESET_DIR.glob("*.json"), key=lambda path: (known.get(path.stem, len(known)), path.stem))
    return {PRESET_LABELS.get(path.stem, path.stem.replace("_", " ")): path for path in paths}


def load_recipe(path: Path) -> LoadedRecipe:
    """A recipe file of ours, kohya_ss, sd-scripts or OneTrainer (JSON or TOML), or an adapter that was trained.

    What is wrong with single values is in its `problems`; the rest is filled in.

    Raises:
        UserError: when it cannot be read, or is not a recipe.
    """
    path = Path(path)
    if path.suffix.lower() == ".safetensors":
        return recipe_from_metadata(read_adapter_metadata(path))
    return recipe_from_object(read_object(path), path.name)


def recipe_from_object(data: Mapping[str, Any], source: str) -> LoadedRecipe:
    """The recipe in a JSON object or TOML document. Raises UserError when it is not a recipe; `source` names it."""
    match recognize(data, source):
        case "metadata":
            return recipe_from_metadata(only_text(dict(data)))
        case "kohya_gui":
            return recipe_of(read_gui(data))
        case "sd_scripts":
            return recipe_of(read_sd_scripts(data))
        case "onetrainer":
            return recipe_of(read_onetrainer(data))
    return recipe_of(_own(data))


def save_recipe(path: Path, recipe: Recipe) -> None:
    """Writes our own flat JSON, whole or not at all. Raises UserError when the file cannot be written."""
    save_object(path, recipe.flat())


def save_object(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON object as `save_recipe` does."""
    write_atomically(Path(path), (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())


def recipe_from_metadata(metadata: Mapping[str, str]) -> LoadedRecipe:
    """The recipe an adapter file was trained with: all of it for ours, what kohya notes for others.

    Raises:
        UserError: when the file says nothing of its training.
    """
    if RECIPE_KEY in metadata:
        return recipe_of(_own(parse_json(metadata[RECIPE_KEY], "The file's metadata")))
    settings = gui_settings(metadata)
    if not settings:
        raise UserError(
            "The file does not say how it was trained.", "Choose one that was trained here or with kohya's sd-scripts."
        )
    return recipe_of(read_gui(settings))


def _own(data: Mapping[str, Any]) -> Reading:
    known = field_types()
    values = {field: data[name] for name, field in KOHYA_ALIASES.items() if name in data}
    values.update({name: value for name, value in data.items() if name in known})
    unknown = data.keys() - known.keys() - KOHYA_ALIASES.keys()
    return Reading(values, (f"Not known here: {shown_names(unknown)}.",) if unknown else ())

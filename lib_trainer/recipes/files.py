"""Recipes as files: the shipped ones, a person's own, kohya_ss' GUI files, and what an adapter file says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lib_trainer.adapter.metadata import RECIPE_KEY
from lib_trainer.config.recipe import Recipe, field_types
from lib_trainer.errors import ConfigError, UserError
from lib_trainer.recipes.kohya_gui import Reading, is_gui_file, read_gui
from lib_trainer.recipes.kohya_metadata import gui_settings
from lib_trainer.utils.atomic_file import write_whole

MAX_FILE_BYTES = 1_000_000
MAX_HEADER_BYTES = 100_000_000
PRESET_DIR = Path(__file__).resolve().parents[2] / "presets"
PRESET_LABELS = {
    "loha_face_config_8gb": "Face · LoHa · 8 GB",
    "lokr_style_config_8gb": "Style · LoKr · 8 GB",
}


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe, and a sentence for everything in its source that is not used or means something else here."""

    recipe: Recipe
    notices: tuple[str, ...] = ()


def presets() -> dict[str, Path]:
    """Label -> file of every shipped recipe; the face recipe comes first."""
    known = {stem: place for place, stem in enumerate(PRESET_LABELS)}
    paths = sorted(PRESET_DIR.glob("*.json"), key=lambda path: (known.get(path.stem, len(known)), path.stem))
    return {PRESET_LABELS.get(path.stem, path.stem.replace("_", " ")): path for path in paths}


def load_recipe(path: Path) -> LoadedRecipe:
    """A recipe file: our own flat `{field: value}` JSON, one saved by the kohya_ss GUI, or an adapter that was trained.

    Raises:
        UserError: when it cannot be read, or is no JSON object.
        ConfigError: with every value that cannot be, together.
    """
    if Path(path).suffix.lower() == ".safetensors":
        return recipe_from_metadata(_read_header(Path(path)))
    data = _read_object(Path(path))
    return _loaded(read_gui(data) if is_gui_file(data) else _own(data))


def save_recipe(path: Path, recipe: Recipe) -> None:
    """Writes our own flat JSON, whole or not at all. Raises UserError when the file cannot be written."""
    write_whole(Path(path), (json.dumps(recipe.flat(), indent=2, ensure_ascii=False) + "\n").encode())


def recipe_from_metadata(metadata: Mapping[str, str]) -> LoadedRecipe:
    """The recipe an adapter file was trained with: all of it for ours, what kohya notes for others.

    Raises:
        UserError: when the file says nothing of its training.
        ConfigError: with every value that cannot be, together.
    """
    if RECIPE_KEY in metadata:
        return _loaded(_own(_parse(metadata[RECIPE_KEY], "The file's metadata")))
    settings = gui_settings(metadata)
    if not settings:
        raise UserError(
            "The file does not say how it was trained.", "Choose one that was trained here or with kohya's sd-scripts."
        )
    return _loaded(read_gui(settings))


def _own(data: Mapping[str, Any]) -> Reading:
    known = field_types()
    unknown = sorted(key for key in data if key not in known)
    notices = (f"Not known here: {', '.join(unknown)}.",) if unknown else ()
    return Reading({key: value for key, value in data.items() if key in known}, notices, {})


def _loaded(reading: Reading) -> LoadedRecipe:
    problems, values = dict(reading.problems), reading.values
    try:
        recipe = Recipe().with_values(values)
    except ConfigError as error:
        problems.update(error.problems)
        recipe = Recipe().with_values({name: value for name, value in values.items() if name not in error.problems})
    try:
        recipe.check(needs_name=False)
    except ConfigError as error:
        problems = {**error.problems, **problems}
    if problems:
        raise ConfigError(problems)
    return LoadedRecipe(recipe, reading.notices)


def _read_header(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file: its first eight bytes say how long the JSON is that follows."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise UserError(f"{path.name} is no adapter file.", "Choose another file.")
            text = file.read(length).decode()
    except OSError as error:
        raise UserError(f"{path.name} cannot be read: {error.strerror or error}.", "Choose another file.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is no adapter file.", "Choose another file.") from error
    metadata = _parse(text, path.name).get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_FILE_BYTES:
            raise UserError(
                f"{path.name} is too large for a recipe: {size_bytes / 1e6:.1f} MB.", "Choose a recipe's .json file."
            )
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path.name} cannot be read: {error.strerror or error}.", "Choose another file.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is no text file.", "Choose a recipe's .json file.") from error
    return _parse(text, path.name)


def _parse(text: str, source: str) -> dict[str, Any]:
    try:
        data = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} is no JSON: {error}.", "Save the recipe again where it comes from.") from error
    if not isinstance(data, dict):
        raise UserError(f"{source} holds no settings: a recipe is one JSON object.", 'Like {"network_dim": 32}.')
    return data


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")

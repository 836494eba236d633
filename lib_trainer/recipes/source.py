"""Reads the text of a recipe file into plain values. Such a file comes from anywhere: nothing in it is trusted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

from lib_trainer.errors import UserError
from lib_trainer.utils.safetensors_header import HeaderError, read_header

MAX_FILE_BYTES = 1_000_000
MAX_DEPTH = 32


def read_object(path: Path) -> dict[str, Any]:
    """The object that a JSON or TOML file holds. Raises UserError for everything else."""
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
        raise UserError(f"{path.name} is not a text file.", "Choose a recipe's .json or .toml file.") from error
    return parse_toml(text, path.name) if path.suffix.lower() == ".toml" else parse_json(text, path.name)


def read_adapter_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself. Raises UserError when it is not such a file."""
    try:
        return read_header(path).metadata
    except OSError as error:
        raise UserError(f"{path.name} cannot be read: {error.strerror or error}.", "Choose another file.") from error
    except HeaderError as error:
        raise UserError(f"{path.name} is not an adapter file: {error}.", "Choose another file.") from error


def only_text(metadata: dict[Any, Any]) -> dict[str, str]:
    """The entries that are text, as safetensors' metadata must be."""
    return {key: value for key, value in metadata.items() if isinstance(key, str) and isinstance(value, str)}


def parse_json(text: str, source: str) -> dict[str, Any]:
    """The JSON object in a text. Raises UserError for other text, NaN, and objects that are nested too deep."""
    try:
        data = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{source} is not JSON: {error}.", "Save the recipe again where it comes from.") from error
    return _shallow_object(data, source)


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """The TOML document in a text. Raises UserError as `parse_json` does."""
    try:
        data = _load_toml(text)
    # The toml package, which reads it before Python 3.11, stumbles over bad files in all these ways.
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{source} is not TOML: {error}.", "Save the recipe again where it comes from.") from error
    return _shallow_object(data, source)


def _load_toml(text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib as toml
    else:
        import toml
    return toml.loads(text)


def _shallow_object(data: Any, source: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise UserError(f"{source} holds no settings: a recipe is one JSON object.", 'Like {"network_dim": 32}.')
    level: list[Any] = [data]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for outer in level
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return data
    raise UserError(f"{source} is nested deeper than {MAX_DEPTH} levels.", "Choose a recipe's file.")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")

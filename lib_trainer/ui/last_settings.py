"""The last settings: a JSON file of ours in the WebUI's data folder."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from lib_trainer.config.recipe import field_types
from lib_trainer.utils.atomic_file import replace_file

_log = logging.getLogger(__name__)


def read_settings(path: Path) -> dict[str, Any]:
    """What was written there last; {} where there is nothing, or nothing readable."""
    try:
        # A person may have edited or truncated it: a broken file must not break the page.
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        _log.warning("The last settings in %s cannot be read: %s", path, error)
        return {}
    return found if isinstance(found, dict) else {}


def read_values(settings: dict[str, Any], key: str) -> dict[str, Any]:
    """The recipe values under `key`. Those that an older or newer release named differently are left out."""
    values = settings.get(key, {})
    # A newer release may have written it, or an older one with other names.
    known = field_types()
    return {name: value for name, value in values.items() if name in known} if isinstance(values, dict) else {}


def write_settings(path: Path, settings: dict[str, Any]) -> None:
    """Writes all of it or nothing. A disk that is full or read-only is logged: it must not keep a run from starting."""
    try:
        replace_file(path, json.dumps(settings, indent=2, ensure_ascii=False).encode())
    except OSError as error:
        _log.warning("The settings could not be kept in %s: %s", path, error)

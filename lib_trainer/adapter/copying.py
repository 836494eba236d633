"""A saved step under another name: the same numbers, and metadata that says the new name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lib_trainer.adapter.files import read_metadata
from lib_trainer.adapter.metadata import RECIPE_KEY
from lib_trainer.disk import write_whole
from lib_trainer.errors import UserError

_LENGTH_BYTES = 8


def copy_adapter(source: Path, target: Path, name: str, strength: float | None = None) -> None:
    """Writes `target`, whole or not at all, with the tensors of `source`.

    Args:
        name: what the file says it is called.
        strength: what it proposes to be used at; None leaves that as it was.

    Raises:
        UserError: when `source` cannot be read or `target` cannot be written.
    """
    metadata = read_metadata(source)
    try:
        content = source.read_bytes()
    except OSError as error:
        raise UserError(f"{source.name} cannot be read: {error.strerror or error}.", "Choose another file.") from error
    header = _header(content)
    header["__metadata__"] = dict(sorted(_renamed(metadata, name, strength).items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    # Tensors start at a multiple of eight.
    text += b" " * (-len(text) % _LENGTH_BYTES)
    write_whole(target, len(text).to_bytes(_LENGTH_BYTES, "little") + text + content[_start(content) :])


def tensors_hash(path: Path) -> str:
    """Tells files of the same numbers from others, whatever their metadata says."""
    content = path.read_bytes()
    layout = {key: value for key, value in _header(content).items() if key != "__metadata__"}
    digest = hashlib.sha256(json.dumps(layout, sort_keys=True).encode())
    digest.update(memoryview(content)[_start(content) :])
    return digest.hexdigest()


def _renamed(metadata: dict[str, str], name: str, strength: float | None) -> dict[str, str]:
    changed = {**metadata, "ss_output_name": name, "modelspec.title": name}
    recipe: dict[str, Any] = json.loads(metadata.get(RECIPE_KEY, "{}"))
    if recipe:
        recipe["output_name"] = name
        if strength is not None:
            recipe["preferred_weight"] = strength
        changed[RECIPE_KEY] = json.dumps(recipe, ensure_ascii=False)
        changed["modelspec.usage_hint"] = f"<lora:{name}:{recipe.get('preferred_weight', 1):g}>"
    return changed


def _header(content: bytes) -> dict[str, Any]:
    return json.loads(content[_LENGTH_BYTES : _start(content)])


def _start(content: bytes) -> int:
    return _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")

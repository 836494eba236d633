"""Where the adapter goes: everything that would keep it from being written is found before the first step."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path

from lib_trainer.adapter.attach import Adapter
from lib_trainer.adapter.io import is_ours
from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import ConfigError, NotWritten
from lib_trainer.models.device import DTYPES
from lib_trainer.utils.atomic_file import require_writable


def free_target(lora_dir: Path, recipe: Recipe) -> Path:
    """The path of the adapter; what a crash left half-written under the names of this run is removed.

    Raises:
        ConfigError: for a file of that name that another program wrote.
        NotWritten: nothing can be written into the folder.
    """
    target = lora_dir / f"{recipe.output.output_name}.safetensors"
    require_writable(lora_dir)
    _remove_partial_files(target)
    if other := _twin(target):
        problem = f"{other.name} differs in capitals only, which Windows and macOS take for the same file"
        raise ConfigError({"output_name": f"{problem}; write it as that one, or choose another name"})
    if target.exists() and not is_ours(target):
        raise ConfigError({"output_name": f"{target.name} exists and was made by another program; choose another name"})
    return target


def _twin(target: Path) -> Path | None:
    """A file beside it whose name differs in capitals only."""
    names = (path for path in target.parent.glob(f"*{target.suffix}") if path.name != target.name)
    return next((path for path in names if path.name.casefold() == target.name.casefold()), None)


def require_space(target: Path, adapter: Adapter, precision: str) -> None:
    """Raises NotWritten where the disk has no room for the adapter file."""
    needed = sum(parameter.numel() for parameter in adapter.parameters()) * DTYPES[precision].itemsize
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        message = f"The adapter takes {needed / 1e6:.0f} MB; {target.parent} has {free / 1e6:.0f} MB free."
        raise NotWritten(message, "Make room there first.")


def _remove_partial_files(target: Path) -> None:
    """Removes half-written files that a crash left under the names of this run."""
    own = re.compile(rf"\.{re.escape(target.stem)}(-(\d{{6}}|step\d{{8}}|ema)(-\d+)?)?\.(safetensors|json)\.part")
    for path in target.parent.glob(".*.part"):
        if own.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()

"""The WebUIs' list of LoRA files: which name means which file, and which file no prompt can call."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from lib_trainer.errors import UserError
from lib_trainer.lora.describe import SUFFIXES, describe_lora
from lib_trainer.lora.info import LoraInfo

_NETWORK = re.compile(r"<lora:([^:>]+)")
# What a name cannot hold, and what it would mean there.
_RESERVED = {":": "begins a strength", "<": "begins a tag", ">": "ends a tag", "=": "names an option"}
_COMMENT = "#"


def loras(*, refresh: bool = False) -> list[LoraInfo]:
    """Every LoRA file below the WebUI's folder, by name; also those that another of the same name hides."""
    import networks

    if refresh:
        networks.list_available_networks()
    entries = list(networks.available_networks.values())
    found = [_describe(entry) for entry in entries]
    listed = {os.path.realpath(entry.filename): entry for entry in entries}
    for path in _files():
        if os.path.realpath(path) not in listed:
            twin = networks.available_networks.get(path.stem)
            if twin is not None:
                problem = f"{_shown(Path(twin.filename))} has the same name and hides it"
                found.append(describe_lora(path, path.stem, {}, problem=problem))
    return sorted(found, key=lambda lora: (lora.name.lower(), str(lora.path)))


def require_networks(prompt: str) -> None:
    """Raises UserError for the `<lora:NAME…>` of a prompt that the WebUI would not find, dropping all of them."""
    import networks

    names = _NETWORK.findall(prompt)
    missing = [name for name in names if _entry(name) is None]
    if missing:
        networks.list_available_networks()
        missing = [name for name in missing if _entry(name) is None]
    if missing:
        raise UserError(f"There is no LoRA named {', '.join(missing)}.", "Look at the names in the Lora tab.")
    for name in names:
        if problem := unwritable(name):
            raise UserError(f"{name} cannot be used in a prompt: {problem}.", "Rename the file.")


def list_new_network() -> None:
    """Makes a new file known: to the prompt syntax, and to the cards at their next refresh."""
    import networks

    networks.list_available_networks()


def unwritable(name: str) -> str:
    """Why a name cannot stand in `<lora:NAME:0.8>`; "" when it can."""
    from modules import shared

    for mark, meaning in _RESERVED.items():
        if mark in name:
            return f"“{mark}” in its name {meaning}"
    if _COMMENT in name and getattr(shared.opts, "enable_prompt_comments", False):
        return f"“{_COMMENT}” in its name begins a comment"
    return ""


def _describe(entry: Any) -> LoraInfo:
    names = [name for name in dict.fromkeys((entry.name, entry.alias)) if _entry(name) is entry]
    usable = [name for name in names if not unwritable(name)]
    path, metadata = Path(entry.filename), entry.metadata or {}
    if usable:
        return describe_lora(path, usable[0], metadata, aliases=tuple(usable[1:]))
    problem = unwritable(entry.name) if names else f"{_shown(_file_of(entry.name))} answers to its name"
    return describe_lora(path, entry.name, metadata, problem=problem)


def _entry(name: str) -> Any:
    """What the WebUI finds under a name. An alias that several files share means the file of that very name."""
    import networks

    if name.lower() in networks.forbidden_network_aliases:
        return networks.available_networks.get(name)
    return networks.available_network_aliases.get(name)


def _file_of(name: str) -> Path:
    entry = _entry(name)
    return Path(entry.filename) if entry else Path(name)


def _files() -> list[Path]:
    from modules import shared

    folder = shared.cmd_opts.lora_dir
    # As the WebUI looks: links are followed.
    found = [Path(place, file) for place, _, files in os.walk(folder, followlinks=True) for file in files]
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)


def _shown(path: Path) -> str:
    from modules import shared

    folder = Path(shared.cmd_opts.lora_dir)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name

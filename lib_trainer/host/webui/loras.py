"""The WebUIs' list of LoRA files: which name means which file, and which file no prompt can call."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lib_trainer.errors import UserError
from lib_trainer.lora.describe import SUFFIXES, describe_lora
from lib_trainer.lora.info import LoraInfo
from lib_trainer.lora.tags import names_in

# Characters that a name in a tag cannot hold, and what they would mean there.
_RESERVED = {":": "begins a strength", "<": "begins a tag", ">": "ends a tag", "=": "names an option"}
_COMMENT = "#"


def list_loras(*, refresh: bool = False) -> list[LoraInfo]:
    """Every LoRA file below the WebUI's folder, by name; also files that another one of the same name hides."""
    import networks

    if refresh:
        networks.list_available_networks()
    entries = list(networks.available_networks.values())
    found = [_describe(entry) for entry in entries]
    listed = {os.path.realpath(entry.filename) for entry in entries}
    # The WebUI's list is keyed by name: of two files of one name in different folders it keeps one, silently.
    for path in _files():
        twin = networks.available_networks.get(path.stem)
        if twin is not None and os.path.realpath(path) not in listed:
            problem = f"{_below_lora_dir(Path(twin.filename))} has the same name and hides it"
            found.append(describe_lora(path, path.stem, {}, problem=problem))
    return sorted(found, key=lambda lora: (lora.name.lower(), str(lora.path)))


def require_networks(prompt: str) -> None:
    """Raises UserError for a `<lora:NAME…>` that the WebUI would not find: one of them makes it drop all, silently."""
    import networks

    names = names_in(prompt)
    missing = [name for name in names if _entry(name) is None]
    if missing:
        # The file may have been added since the WebUI listed its folder.
        networks.list_available_networks()
        missing = [name for name in missing if _entry(name) is None]
    if missing:
        raise UserError(f"There is no LoRA named {', '.join(missing)}.", "Look at the names in the Lora tab.")
    for name in names:
        if problem := name_problem(name):
            raise UserError(f"{name} cannot be used in a prompt: {problem}.", "Rename the file.")


def refresh() -> None:
    """Lists new files: for the prompt syntax at once, for the cards at their next refresh."""
    import networks

    networks.list_available_networks()


def name_problem(name: str) -> str:
    """Why `<lora:NAME:0.8>` cannot hold this name; "" when it can."""
    from modules import shared

    for mark, meaning in _RESERVED.items():
        if mark in name:
            return f"“{mark}” in its name {meaning}"
    if _COMMENT in name and _comments_are_cut(shared.opts):
        return f"“{_COMMENT}” in its name begins a comment"
    return ""


def _comments_are_cut(opts: Any) -> bool:
    """Whether each line of a prompt ends at its #, before the tags are read: an option that is on by default."""
    # reForge has none, cuts always, and asks only whether files keep the comments.
    return bool(getattr(opts, "enable_prompt_comments", hasattr(opts, "enable_prompt_comments_def")))


def _describe(entry: Any) -> LoraInfo:
    names = [name for name in dict.fromkeys((entry.name, entry.alias)) if _entry(name) is entry]
    usable = [name for name in names if not name_problem(name)]
    path, metadata = Path(entry.filename), entry.metadata or {}
    if usable:
        return describe_lora(path, usable[0], metadata, aliases=tuple(usable[1:]))
    if names:
        problem = name_problem(entry.name)
    else:
        # Another file's alias (its `ss_output_name`) is this file's name, and the WebUI looks among aliases first.
        other = _entry(entry.name)
        problem = f"{_below_lora_dir(Path(other.filename if other else entry.name))} answers to its name"
    return describe_lora(path, entry.name, metadata, problem=problem)


def _entry(name: str) -> Any:
    """What the WebUI finds under a name. It forbids aliases that several files share: those mean file names only."""
    import networks

    if name.lower() in networks.forbidden_network_aliases:
        return networks.available_networks.get(name)
    return networks.available_network_aliases.get(name)


def _files() -> list[Path]:
    from modules import shared

    # Links are followed, as the WebUI does: people keep their LoRAs on another disk.
    walked = os.walk(shared.cmd_opts.lora_dir, followlinks=True)
    found = [Path(folder, file) for folder, _, files in walked for file in files]
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)


def _below_lora_dir(path: Path) -> str:
    from modules import shared

    folder = Path(shared.cmd_opts.lora_dir)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name

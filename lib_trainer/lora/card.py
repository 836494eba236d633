"""The card of a LoRA: what the WebUI keeps beside the file, and what a person decides by looking at pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from lib_trainer.adapter.metadata import LABELS, TrainedOn
from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import UserError
from lib_trainer.lora.info import LoraInfo
from lib_trainer.lora.prompts import prompt_lines
from lib_trainer.models.base import CheckpointInfo
from lib_trainer.models.families import Family
from lib_trainer.utils.atomic_file import write_whole
from lib_trainer.utils.png import png_bytes

PROMPTS_KEY = "test prompts"
STRENGTH_KEY = "preferred weight"
# What WebUIs take for a card's picture, beside the PNG that we write.
_PICTURES = tuple(
    f"{kind}{ending}" for kind in ("", ".preview") for ending in (".png", ".jpg", ".jpeg", ".webp", ".gif")
)
_CHOSEN_KEY = "train_lora"


def saved_prompts(lora: LoraInfo) -> list[str]:
    """The test prompts that were kept with the run; [] where there are none."""
    kept = read_card(lora.path).get(PROMPTS_KEY)
    return prompt_lines("\n".join(map(str, kept))) if isinstance(kept, list) else []


def save_prompts(lora: LoraInfo, prompts: Sequence[str]) -> None:
    """Keeps the prompts on the card, if there is one: other people's files get no card by being tried."""
    if read_card(lora.path) and saved_prompts(lora) != list(prompts):
        _change_card(lora.path, {PROMPTS_KEY: list(prompts)})


def prefer_strength(lora: LoraInfo, strength: float) -> None:
    """Makes `strength` the one that the card proposes."""
    _change_card(lora.path, {STRENGTH_KEY: strength})


def keep_picture(lora: LoraInfo, picture: Image.Image, infotext: str) -> Path:
    """Makes `picture` the card's; one that is not from us stays under another name.

    Raises:
        UserError: when it cannot be written.
    """
    path = lora.path.with_suffix(".png")
    for ending in _PICTURES:
        old = lora.path.with_name(f"{lora.path.stem}{ending}")
        # Only a card that has no other picture is sure to show ours.
        if old.is_file() and not (old == path and _is_ours(old)):
            _put_aside(old)
    write_whole(path, png_bytes(picture, infotext, **{_CHOSEN_KEY: "chosen from a grid"}))
    return path


def _change_card(path: Path, changes: dict[str, Any]) -> None:
    """Writes the card with these values; all else that is on it stays."""
    content = {**read_card(path), **changes}
    write_whole(path.with_suffix(".json"), json.dumps(content, indent=2, ensure_ascii=False).encode())


def _put_aside(path: Path) -> None:
    """Renames to `NAME.old.png`, `NAME.old-2.png` …: nothing is replaced."""
    number = 1
    while (target := path.with_name(f"{path.stem}.old{f'-{number}' if number > 1 else ''}{path.suffix}")).exists():
        number += 1
    try:
        os.rename(path, target)
    except OSError as error:
        raise UserError(
            f"{path.name} could not be put aside: {error.strerror or error}.", "Rename it yourself."
        ) from error


def _is_ours(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return _CHOSEN_KEY in picture.info
    except (OSError, ValueError):
        return False


# What the run knows better than whoever edited the card; everything else on it is theirs.
_OURS = ("activation text", "sd version")


def _write_card(path: Path, made: dict[str, Any]) -> bytes:
    """Writes the card and returns its content; what a person has written on an older one stays."""
    theirs: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        read = json.loads(path.read_text("utf-8"))
        theirs = read if isinstance(read, dict) else {}
    content = {**made, **theirs, **{key: made[key] for key in _OURS if key in made}}
    written = json.dumps(content, indent=2, ensure_ascii=False).encode()
    write_whole(path, written)
    return written


def read_card(path: Path) -> dict[str, Any]:
    """NAME.json beside the file: what a WebUI's card shows. {} where there is none that can be read."""
    with suppress(OSError, ValueError):
        found = json.loads(path.with_suffix(".json").read_text("utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def card(
    recipe: Recipe, family: Family, checkpoint: CheckpointInfo, trained_on: TrainedOn, *, steps: int
) -> dict[str, Any]:
    """What the WebUI's card shows and puts into a prompt: the content of NAME.json."""
    adapter = recipe.adapter
    size = f"{LABELS[adapter.algo]} {adapter.network_dim}" + (f"/{adapter.conv_dim}" if adapter.conv_dim else "")
    facts = f"{size}, {steps} steps on {len(trained_on.pictures)} pictures, on {checkpoint.name} ({family.label})"
    return {
        "description": recipe.output.comment,
        "sd version": family.card_version,
        "activation text": trained_on.trigger_word,
        "preferred weight": recipe.output.preferred_weight,
        "notes": f"Trained with Train LoRA: {facts}.",
    }

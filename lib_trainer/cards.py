"""The card of a LoRA: what the WebUI keeps beside the file, and what a person decides by looking at pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lib_trainer.disk import write_whole
from lib_trainer.errors import UserError
from lib_trainer.host.base import LoraInfo
from lib_trainer.host.lora_files import read_card
from lib_trainer.host.png import png_bytes
from lib_trainer.preview.prompts import prompt_lines

PROMPTS_KEY = "test prompts"
STRENGTH_KEY = "preferred weight"
# What WebUIs take for a card's picture, beside the PNG that we write.
_PICTURES = tuple(
    f"{kind}{ending}" for kind in ("", ".preview") for ending in (".png", ".jpg", ".jpeg", ".webp", ".gif")
)
_OURS = "train_lora"


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
    write_whole(path, png_bytes(picture, infotext, **{_OURS: "chosen from a grid"}))
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
            return _OURS in picture.info
    except (OSError, ValueError):
        return False

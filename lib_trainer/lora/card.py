"""The card of a LoRA: NAME.json and NAME.png beside the file, which the WebUIs show and put into prompts."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from lib_trainer.adapter.metadata import LABELS, TrainedOn
from lib_trainer.config.recipe import Recipe
from lib_trainer.errors import NotWritten
from lib_trainer.lora.info import LoraInfo
from lib_trainer.lora.prompts import prompt_lines
from lib_trainer.models.base import CheckpointInfo
from lib_trainer.models.families import Family
from lib_trainer.utils.atomic_file import write_atomically
from lib_trainer.utils.json_object import json_object
from lib_trainer.utils.png import png_bytes

# The WebUIs' own names, but for the prompts: unknown keys stay when a WebUI saves the card.
TRIGGER_KEY, VERSION_KEY, STRENGTH_KEY, PROMPTS_KEY = (
    "activation text",
    "sd version",
    "preferred weight",
    "test prompts",
)
# The run knows these better than an older card; everything else on it belongs to whoever wrote it.
_FROM_THE_RUN = (TRIGGER_KEY, VERSION_KEY)
# Files that the WebUIs take for a card's picture, beside the PNG that we write.
_PICTURES = tuple(
    f"{kind}{ending}" for kind in ("", ".preview") for ending in (".png", ".jpg", ".jpeg", ".webp", ".gif")
)
_CHOSEN_KEY = "train_lora"


def new_card(
    recipe: Recipe, family: Family, checkpoint: CheckpointInfo, trained_on: TrainedOn, *, steps: int
) -> dict[str, Any]:
    """The content of a card after a run: what the WebUI shows and puts into a prompt."""
    adapter = recipe.adapter
    size = f"{LABELS[adapter.algo]} {adapter.network_dim}" + (f"/{adapter.conv_dim}" if adapter.conv_dim else "")
    pictures = len(trained_on.pictures)
    learned_from = f" on {pictures} pictures" if pictures else ""
    facts = f"{size}, {steps} steps{learned_from}, on {checkpoint.name} ({family.label})"
    task = recipe.task.summary
    word = recipe.embedding.prompt_word(trained_on.trigger_word)
    if count := recipe.embedding.num_vectors_per_token:
        task = f"The word {word} is an embedding of {count} vectors, bundled in the file: write it into the prompt"
    # A slider has no word: it is tried on the prompts that it moves.
    prompts = list(dict.fromkeys(line.neutral for line in recipe.task.prompts if line.neutral))
    return {
        **({PROMPTS_KEY: prompts} if prompts else {}),
        "description": recipe.output.comment,
        VERSION_KEY: family.card_version,
        TRIGGER_KEY: word,
        STRENGTH_KEY: recipe.output.preferred_weight,
        "notes": f"Trained with Train LoRA: {facts}.{task and f' {task}.'}",
    }


def card_path(lora: Path) -> Path:
    return lora.with_suffix(".json")


def read_card(lora: Path) -> dict[str, Any]:
    """The card of the LoRA file at `lora`; {} without a card that can be read."""
    with suppress(OSError, ValueError):
        return json_object(card_path(lora).read_text("utf-8"))
    return {}


def write_card(lora: Path, card: dict[str, Any], also: Collection[str] = ()) -> bytes:
    """Writes the card of a run and returns its bytes; what a person wrote on an older card stays.

    Args:
        also: further keys whose new value replaces the older card's.

    Raises:
        UserError: when it cannot be written.
    """
    from_the_run = {key: card[key] for key in (*_FROM_THE_RUN, *also) if key in card}
    return _write(lora, {**card, **read_card(lora), **from_the_run})


def move_card(lora: Path, target: Path) -> None:
    """Gives the card and the pictures of the LoRA file `lora` to the file `target`, in place of its own.

    Raises:
        NotWritten: one of them cannot be renamed.
    """
    for ending in (".json", *_PICTURES):
        old = lora.with_name(f"{lora.stem}{ending}")
        if old.is_file():
            _rename(old, target.with_name(f"{target.stem}{ending}"))


def saved_prompts(lora: LoraInfo) -> list[str]:
    """The test prompts on the card; [] without any."""
    kept = read_card(lora.path).get(PROMPTS_KEY)
    return prompt_lines("\n".join(map(str, kept))) if isinstance(kept, list) else []


def save_prompts(lora: LoraInfo, prompts: Sequence[str]) -> None:
    """Puts the test prompts on the card if there is one: trying other people's files creates no cards."""
    card = read_card(lora.path)
    if card and saved_prompts(lora) != list(prompts):
        _write(lora.path, {**card, PROMPTS_KEY: list(prompts)})


def prefer_strength(lora: LoraInfo, strength: float) -> None:
    """Makes `strength` the one that the card proposes."""
    _write(lora.path, {**read_card(lora.path), STRENGTH_KEY: strength})


def keep_picture(lora: LoraInfo, picture: Image.Image, infotext: str) -> Path:
    """Makes `picture` the card's; a picture that is not ours is renamed, not replaced.

    Raises:
        UserError: when it cannot be written.
    """
    path = lora.path.with_suffix(".png")
    for ending in _PICTURES:
        old = lora.path.with_name(f"{lora.path.stem}{ending}")
        # The WebUIs show whichever they find first: only a card without any other picture is sure to show ours.
        if old.is_file() and not (old == path and _is_ours(old)):
            _put_aside(old)
    write_atomically(path, png_bytes(picture, infotext, **{_CHOSEN_KEY: "chosen from a grid"}))
    return path


def _write(lora: Path, card: dict[str, Any]) -> bytes:
    content = json.dumps(card, indent=2, ensure_ascii=False).encode()
    write_atomically(card_path(lora), content)
    return content


def _put_aside(path: Path) -> None:
    """Renames to `NAME.old.png`, `NAME.old-2.png` …: nothing is replaced."""
    number = 1
    while (target := path.with_name(f"{path.stem}.old{f'-{number}' if number > 1 else ''}{path.suffix}")).exists():
        number += 1
    _rename(path, target)


def _rename(path: Path, target: Path) -> None:
    try:
        os.replace(path, target)
    except OSError as error:
        message = f"{path.name} could not be renamed: {error.strerror or error}."
        raise NotWritten(message, "Rename it yourself.") from error


def _is_ours(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return _CHOSEN_KEY in picture.info
    except (OSError, ValueError):
        return False

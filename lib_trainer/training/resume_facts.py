"""What a resume requires to be unchanged, and the settings that the interrupted run computed with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lib_trainer.config.recipe import Recipe, default_of, field_types
from lib_trainer.config.task import FOLDER_FIELDS
from lib_trainer.training.loop import Training

HEADER = "train_lora_state"
# These change nothing that is computed, so a resumed run may have others.
_FREE = frozenset((*FOLDER_FIELDS, "cache_latents_to_disk"))
# The length of a run, which a resume may extend.
_LENGTH = frozenset(("max_train_steps", "epoch"))
_CHANGED = {
    "checkpoint": "the checkpoint has",
    "pictures": "pictures or captions have",
    "recipe": "its settings have",
    "steps": "its number of steps has",
    "loras": "a LoRA that it starts from or trains over has",
}


@dataclass(frozen=True)
class Facts:
    """Base model hash, dataset fingerprint, steps, settings and LoRAs. The names are keys of the file."""

    checkpoint: str
    pictures: str
    steps: int
    recipe: dict[str, Any]
    loras: str = ""

    @classmethod
    def of(cls, training: Training, pictures: str) -> Facts:
        settings, steps = _what_computes(training.recipe), training.schedule.steps
        return cls(training.model.checkpoint.sha256, pictures, steps, settings, training.started_from)


def changes(found: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs from when the state was written. A setting that did not exist then had its default."""
    # Through JSON as the file was, so that tuples compare as lists.
    before = {name: json.loads(json.dumps(default_of(name))) for name in now["recipe"]} | dict(found.get("recipe", {}))
    # Earlier releases did not note the LoRAs.
    found, now = {"loras": now["loras"], **found, "recipe": before}, {**now, "recipe": dict(now["recipe"])}
    # A longer run takes the same first steps; a shorter one would have had another schedule.
    if now["steps"] > found.get("steps", 0):
        for facts in (found, now):
            facts["steps"] = now["steps"]
            facts["recipe"] = {name: value for name, value in facts["recipe"].items() if name not in _LENGTH}
    return [text for name, text in _CHANGED.items() if found.get(name) != now[name]]


def resumed_settings(path: Path) -> dict[str, Any]:
    """The settings that the interrupted run computed with: the recipe's, as its memory plan changed them.

    Without its length, which a resume may extend. {} without a readable file; `load_state` raises the reason.
    """
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads((file.metadata() or {})[HEADER])["facts"]["recipe"]
    except (OSError, SafetensorError, LookupError, ValueError, TypeError):
        return {}
    known = field_types()
    return {name: value for name, value in settings.items() if name in known and name not in _LENGTH}


def _what_computes(recipe: Recipe) -> dict[str, Any]:
    output = recipe.output.__dict__
    return {name: value for name, value in recipe.flat().items() if name not in output and name not in _FREE}

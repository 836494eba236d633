"""What must not have changed between two lives of a run, and the settings it was kept with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lib_trainer.config.recipe import Recipe, default_of, field_types
from lib_trainer.training.loop import Training

HEADER = "train_lora_state"
# What may change between two lives of a run without changing what is computed.
_FREE = frozenset(("train_data_dir", "cache_latents_to_disk"))
# What decides how long a run is: it may go on to more steps.
_LENGTH = frozenset(("max_train_steps", "epoch"))
_CHANGED = {
    "checkpoint": "the checkpoint has",
    "pictures": "pictures or captions have",
    "recipe": "its settings have",
    "steps": "its number of steps has",
}


@dataclass(frozen=True)
class Facts:
    """What must not have changed: the checkpoint's hash, the pictures' fingerprint, and the steps of the run."""

    checkpoint: str
    pictures: str
    steps: int
    recipe: dict[str, Any]

    @classmethod
    def of(cls, training: Training, pictures: str) -> Facts:
        return cls(training.model.checkpoint.sha256, pictures, training.schedule.steps, _what_computes(training.recipe))


def changes(found: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not as it was when the state was written. A setting that did not exist then had its default."""
    before = {name: json.loads(json.dumps(default_of(name))) for name in now["recipe"]} | dict(found.get("recipe", {}))
    found, now = {**found, "recipe": before}, {**now, "recipe": dict(now["recipe"])}
    if now["steps"] > found.get("steps", 0):
        for facts in (found, now):
            facts["steps"] = now["steps"]
            facts["recipe"] = {name: value for name, value in facts["recipe"].items() if name not in _LENGTH}
    return [text for name, text in _CHANGED.items() if found.get(name) != now[name]]


def kept_settings(path: Path) -> dict[str, Any]:
    """The settings that a kept run computes with: the recipe's, but for what the memory plan has changed in them.

    How long the run is does not belong to them: it may go on to more steps.

    {} where nothing that can be read is kept; `load_state` says why.
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

"""What a resume requires to be unchanged, and the settings that the interrupted run computed with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lib_trainer.config.recipe import Recipe, default_of, field_types
from lib_trainer.config.task import FOLDER_FIELDS
from lib_trainer.models.device import DTYPES, compute_dtype
from lib_trainer.training.loop import Training
from lib_trainer.utils.json_object import json_object

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
        settings = dict(_header(path)["facts"]["recipe"])
    except (LookupError, ValueError, TypeError):
        return {}
    known = field_types()
    return {name: value for name, value in settings.items() if name in known and name not in _LENGTH}


def _header(path: Path) -> dict[str, Any]:
    """The JSON of a resume state; {} without a readable file."""
    try:
        with safe_open(path, framework="pt") as file:
            return json_object((file.metadata() or {}).get(HEADER, ""))
    except (OSError, SafetensorError):
        return {}


def dtype_of_run(path: Path | None, recipe: Recipe, device: torch.device) -> torch.dtype:
    """What a run computes in: as it began where it resumes on the same kind of device, else what suits the device.

    Args:
        path: of its resume state; None for a run that keeps none.
    """
    header = _header(path) if path else {}
    if not header:
        return compute_dtype(recipe.training.mixed_precision, device)
    # Earlier releases wrote none, and computed in float32 on a CPU whatever the recipe says.
    found = header.get("computes", {"cpu": "float32"}).get(device.type)
    dtypes = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES.values()}
    return dtypes.get(found) or compute_dtype(recipe.training.mixed_precision, device)


def kernels_of_run(path: Path | None) -> dict[str, str]:
    """`KernelChoices.made` of an interrupted run; {} for a new one.

    Args:
        path: as for `dtype_of_run`.
    """
    found = _header(path).get("kernels", {}) if path else {}
    return found if isinstance(found, dict) else {}


def _what_computes(recipe: Recipe) -> dict[str, Any]:
    output = recipe.output.__dict__
    return {name: value for name, value in recipe.flat().items() if name not in output and name not in _FREE}

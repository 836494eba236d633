"""What the page shows when it is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_trainer.config.recipe import Recipe, default_of
from lib_trainer.models.families import Family
from lib_trainer.recipes.files import presets
from lib_trainer.ui.last_settings import read_settings, read_values
from lib_trainer.ui.proposals import Proposed
from lib_trainer.ui.recipe_panel import load_preset, preset_for, recipe_values


@dataclass(frozen=True)
class StartingPoint:
    """`base`: the values of the recipe that was chosen; `values` of the last run may differ from them.

    `proposed`: the trigger word and name that the page had proposed then.
    """

    kind: str
    preset: str | None
    base: Mapping[str, Any]
    values: dict[str, Any]
    proposed: Proposed


def starting_point(settings_file: Path, family: Family | None = None) -> StartingPoint:
    """The last run's settings; without one, the recipe for faces that fits the loaded checkpoint's family."""
    settings = read_settings(settings_file)
    values = read_values(settings, "values")
    if values:
        preset = settings.get("preset")
        # The file may name a recipe that this release no longer ships.
        shipped = recipe_values(load_preset(preset)) if preset in presets() else {}
        # Settings of an earlier release hold no recipe: of an opened file only the values are known.
        base = shipped or read_values(settings, "recipe") or values
        proposed = Proposed(**read_values(settings, "proposed"))
        return StartingPoint(str(settings.get("kind", "face")), preset, base, values, proposed)
    # The most common first LoRA.
    preset = preset_for("face", family)
    shipped = recipe_values(load_preset(preset)) if preset else {}
    return StartingPoint("face", preset, shipped, shipped, Proposed())


def recipe_size(values: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height in pixels that the values train at: what the adapter draws best."""
    size = values.get("resolution_px", default_of("resolution_px"))
    return Recipe().with_values({"resolution_px": size}).dataset.resolution_px

"""What a LoRA file and its card say about it; the same for every host."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from lib_trainer.adapter.metadata import RECIPE_KEY
from lib_trainer.config.start import StartConfig
from lib_trainer.config.task import DIFFERENCE, SLIDER
from lib_trainer.lora.card import read_card
from lib_trainer.lora.info import LoraInfo
from lib_trainer.models.families import FAMILIES, SDXL, UNET_FAMILIES, Family
from lib_trainer.models.transformer_layers import family_of_file_name
from lib_trainer.utils.safetensors_header import HeaderError, read_header

SUFFIXES = (".safetensors", ".ckpt", ".pt")
_SDXL_ONLY = ("lora_te2_", "lora_unet_input_blocks_", "lora_unet_output_blocks_", "lora_unet_middle_block_")
_BY_CONTEXT = {family.context_dim: family for family in UNET_FAMILIES}


def describe_lora(
    path: Path, name: str, metadata: Mapping[str, Any], *, aliases: tuple[str, ...] = (), problem: str = ""
) -> LoraInfo:
    """The file as a host lists it. `metadata`: the file's own, which WebUIs keep in memory."""
    card = read_card(path)
    # The card first: a person may have corrected what the file says.
    family = _family_by_card(card) or family_by_metadata(metadata) or _family_by_keys(path)
    trigger_words = str(card.get("activation text") or metadata.get("modelspec.trigger_phrase") or "").strip()
    strength, steps = _number(card.get("preferred weight")), int(_number(metadata.get("ss_steps")))
    recipe = _recipe_of(metadata)
    two_way = recipe.get("mode") in (SLIDER, DIFFERENCE)
    over = _trained_over(recipe)
    return LoraInfo(name, path, aliases, family, trigger_words, strength, steps, problem, two_way, over)


def family_by_metadata(metadata: Mapping[str, Any]) -> Family | None:
    """By `modelspec.architecture` or kohya's `ss_base_model_version`; None if neither names a family of ours."""
    architecture = str(metadata.get("modelspec.architecture", "")).removesuffix("/lora").lower()
    version = str(metadata.get("ss_base_model_version", ""))
    for family in FAMILIES.values():
        if architecture and family.architecture.removesuffix("/lora").lower() == architecture:
            return family
        # sd_v1, sd_v2_v, sdxl_base_v0-9: the first five letters name a family with a UNet.
        letters = None if family.is_flow else 5
        if version[:letters] == family.base_model_version[:letters]:
            return family
    return None


def family_by_layers(names: Iterable[str]) -> Family | None:
    """By the names of adapted layers, where those of one family of transformers only fit all of them."""
    found: list[Family] = []
    for name in names:
        fitting = family_of_file_name(name)
        found = [family for family in fitting if family in found or not found]
        if not found:
            return None
    # Families of one layout: the most common is meant unless the file says another.
    return found[0] if found else None


def _recipe_of(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of the run that made it; {} where another program did."""
    recipe = metadata.get(RECIPE_KEY)
    # Some WebUIs keep the JSON in metadata parsed.
    with suppress(ValueError, RecursionError):
        recipe = json.loads(recipe) if isinstance(recipe, str) else recipe
    return recipe if isinstance(recipe, Mapping) else {}


def _trained_over(recipe: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    names, strengths = (recipe.get(name) for name in ("base_weights", "base_weights_multiplier"))
    # A file may say anything.
    with suppress(ValueError):
        config = StartConfig(base_weights=str(names or ""), base_weights_multiplier=str(strengths or ""))
        return tuple((name.removesuffix(".safetensors"), strength) for name, strength in config.base_loras)
    return ()


def _family_by_card(card: Mapping[str, Any]) -> Family | None:
    version = str(card.get("sd version"))
    found = [family for family in FAMILIES.values() if family.card_version == version]
    # Klein's two sizes share a version.
    return found[0] if len(found) == 1 else None


def _family_by_keys(path: Path) -> Family | None:
    try:
        return _read_family(path, path.stat().st_mtime_ns) if path.suffix == ".safetensors" else None
    except (OSError, HeaderError):
        return None


# A WebUI lists thousands of files at every refresh; the time of change makes a new entry when a file is replaced.
@lru_cache(maxsize=4096)
def _read_family(path: Path, _changed_ns: int) -> Family | None:
    """By the layers' names, or by the width of the text that cross-attention reads; only the header is read."""
    shapes = read_header(path).shapes
    if any(key.startswith(_SDXL_ONLY) for key in shapes):
        return SDXL
    for key, shape in shapes.items():
        if "attn2_to_k" in key and key.endswith(("lora_down.weight", "hada_w1_b")) and len(shape) > 1:
            return _BY_CONTEXT.get(shape[1])
    return family_by_layers(key.partition(".")[0] for key in shapes)


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number if math.isfinite(number) else 0.0

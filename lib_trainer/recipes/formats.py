"""Which program wrote a description: each format is scored by the names that it knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lib_trainer.config.recipe import field_types
from lib_trainer.errors import UserError
from lib_trainer.recipes.kohya_table import FIELDS, KOHYA_ALIASES
from lib_trainer.recipes.onetrainer import ONETRAINER_NAMES
from lib_trainer.recipes.reading import shown_names
from lib_trainer.recipes.sd_scripts import SD_SCRIPTS_NAMES, flat_settings

FormatName = Literal["ours", "kohya_gui", "sd_scripts", "onetrainer", "metadata"]
# A name that only one format has says more than one that several share.
_OWN_NAME, _SHARED_NAME = 3, 1
# One known name among this many that are not is chance.
_UNKNOWN_PER_KNOWN = 8


@dataclass(frozen=True)
class Format:
    """`looks_like` says what a file is that holds no recipe; "" for those that do."""

    names: frozenset[str]
    looks_like: str = ""


def _other(looks_like: str, names: str) -> Format:
    return Format(frozenset(names.split("|")), looks_like)


_OTHERS = {
    "package": _other(
        "a package.json", "name|version|scripts|dependencies|devDependencies|main|author|license|private"
    ),
    "card": _other(
        "a LoRA's card; choose the .safetensors file beside it",
        "description|sd version|activation text|preferred weight|negative text|notes",
    ),
    "peft": _other(
        "PEFT's adapter_config.json, which says nothing of the training",
        "peft_type|r|lora_alpha|alpha|target_modules|task_type|base_model_name_or_path|bias|rank_pattern|alpha_pattern"
        "|inference_mode|modules_to_save|init_lora_weights|lora_dropout|fan_in_fan_out|layers_to_transform",
    ),
    "comfyui": _other("a workflow of ComfyUI", "nodes|links|groups|last_node_id|last_link_id|extra|version|config"),
    "diffusers": _other(
        "the configuration of a model",
        "_class_name|_diffusers_version|architectures|hidden_size|model_type|torch_dtype|vocab_size|in_channels",
    ),
    "webui": _other("the settings of a WebUI", "sd_model_checkpoint|samples_save|samples_format|outdir_samples|sd_vae"),
    "civitai": _other(
        "the description of a model on Civitai",
        "id|modelId|name|createdAt|updatedAt|trainedWords|baseModel|files|images|downloadUrl|model|stats",
    ),
    "pyproject": _other("a pyproject.toml", "project|build-system|tool"),
}


def recognize(data: Mapping[str, Any], source: str) -> FormatName:
    """The format of a description.

    Raises:
        UserError: when it is none of those that are known, with what it looks like.
    """
    if any(key.startswith("ss_") for key in data):
        return "metadata"
    formats = _formats()
    if {"LoRA_type", "LyCORIS_preset"} <= data.keys():
        # Written by save-recipe, which adds under our names what kohya_ss lacks: those say nothing then.
        formats["kohya_gui"] = Format(formats["kohya_gui"].names | formats["ours"].names)
    names = {name: {*data, *flat_settings(data)} if name == "sd_scripts" else set(data) for name in formats}
    scores = {name: _score(names[name], name, formats) for name in formats}
    # Of equals the first counts: ours.
    best = max(formats, key=lambda name: scores[name])
    known = len(names[best] & formats[best].names)
    if formats[best].looks_like and known:
        raise UserError(f"{source} is not a recipe: it looks like {formats[best].looks_like}.", _HINT)
    if not known or len(names[best]) > known * (_UNKNOWN_PER_KNOWN + 1):
        held = f"it holds {shown_names(data)}" if data else "it is empty"
        raise UserError(f"{source} is not a recipe: {held}.", _HINT)
    return best


_HINT = "Choose a recipe of Train LoRA, kohya_ss, sd-scripts or OneTrainer, or a LoRA that was trained with one."


def _formats() -> dict[str, Format]:
    return {
        "ours": Format(frozenset({*field_types(), *KOHYA_ALIASES})),
        "kohya_gui": Format(frozenset(FIELDS)),
        "sd_scripts": Format(SD_SCRIPTS_NAMES),
        "onetrainer": Format(ONETRAINER_NAMES),
        **_OTHERS,
    }


def _score(names: Iterable[str], format_name: str, formats: Mapping[str, Format]) -> int:
    mine = formats[format_name].names
    score = 0
    for name in names:
        if name in mine:
            owners = sum(name in other.names for other in formats.values())
            score += _OWN_NAME if owners == 1 else _SHARED_NAME
    return score

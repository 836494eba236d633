"""The settings that kohya's `ss_*` metadata of an adapter file hold."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from lib_trainer.adapter.metadata import AS_THEY_ARE, LOKR_ARGS, NETWORK_ARGS
from lib_trainer.recipes.sd_scripts import lora_type
from lib_trainer.utils.json_object import json_object

# What the kohya_ss GUI calls by another name than the file.
GUI_NAMES = {
    "num_epochs": "epoch",
    "max_train_steps": "max_train_steps",
    "lr_warmup_steps": "lr_warmup_steps",
    "batch_size_per_device": "train_batch_size",
    "training_comment": "training_comment",
}


def gui_settings(metadata: Mapping[str, str]) -> dict[str, Any]:
    """kohya's `ss_*` of any file under the names of the kohya_ss GUI; empty when the file has none."""
    known = {key[3:]: value for key, value in metadata.items() if key.startswith("ss_") and value not in ("", "None")}
    if "network_module" not in known:
        return {}
    folders = _first(known.get("datasets"))
    known.update({key: value for key, value in folders.items() if key not in known})
    known.update({key: value for key, value in _first(folders.get("subsets")).items() if key not in known})
    settings = {name: known[name] for name in (*AS_THEY_ARE, "unet_lr", "learning_rate") if name in known}
    arguments = _object(known.get("network_args"))
    settings.update({name: arguments[name] for name in (*NETWORK_ARGS, *LOKR_ARGS, "use_cp") if name in arguments})
    settings["LoRA_type"] = lora_type(known["network_module"], arguments)
    if "debiased_estimation" in known:
        settings["debiased_estimation_loss"] = known["debiased_estimation"]
    settings.update({gui: known[name] for name, gui in GUI_NAMES.items() if name in known})
    if "optimizer" in known:  # bitsandbytes.optim.adamw.AdamW8bit(weight_decay=0.1)
        name, _, options = known["optimizer"].partition("(")
        settings["optimizer"] = name.rsplit(".", 1)[-1]
        parts = re.split(r",(?![^(]*\))", options.removesuffix(")"))
        settings["optimizer_args"] = " ".join(f'"{part.strip()}"' for part in parts if part.strip())
    if "resolution" in known:  # "896,896", "(896, 896)" or [896, 896]
        settings["max_resolution"] = str(known["resolution"]).strip("()[] ")
    return settings


def _object(text: Any) -> dict[str, Any]:
    """A JSON object inside the metadata; anything else, which any file may hold, is empty."""
    if isinstance(text, str):
        return json_object(text)
    return text if isinstance(text, dict) else {}


def _first(value: Any) -> dict[str, Any]:
    """The first object of a JSON list."""
    try:
        items = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return {}
    return items[0] if isinstance(items, list) and items and isinstance(items[0], dict) else {}

"""LoRAs as ComfyUI's `ModelPatcher` holds them: patches of a copy, merged into the weights when the model is moved.

Forge Neo, reForge and Forge Classic share it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

# Where layers keep LoRAs that they merge in every forward, as layers of a partly moved model do.
_FUNCTIONS = ("weight_function", "bias_function")


def forget_loras(loaded: Any) -> Any:
    """Restores the original objects of the loaded checkpoint, and returns them: it is drawn without LoRAs.

    Args:
        loaded: of any program of the Forge family.
    """
    # Programs of the Forge family draw with `forge_objects`, copies of the originals that may carry LoRA patches, and
    # skip the merge while the hash of names and strengths stays the same.
    original = loaded.forge_objects_original
    loaded.forge_objects = original.shallow_copy()
    loaded.forge_objects_after_applying_lora = original.shallow_copy()
    loaded.current_lora_hash = str([])
    return original


def unpatch(loaded: Any, memory_management: Any) -> None:
    """Restores the checkpoint's own weights, even after a merge that failed half-way.

    Args:
        memory_management: the program's module that moves models.
    """
    # In most programs all copies of a patcher share their backups; in Forge Classic each copy has its own.
    used = [loaded.forge_objects, loaded.forge_objects_after_applying_lora, forget_loras(loaded)]
    patchers = {id(patcher): patcher for each in used for patcher in (each.unet, each.clip.patcher)}
    with torch.inference_mode():
        memory_management.unload_all_models()
        for patcher in patchers.values():
            patcher.unpatch_model(patcher.offload_device)
            for part in patcher.model.modules():
                _drop_functions(part)


def _drop_functions(part: nn.Module) -> None:
    """ComfyUI leaves these on the layers when a model leaves the device; they would merge old LoRAs again."""
    for name in _FUNCTIONS:
        if getattr(part, name, None):
            setattr(part, name, [])

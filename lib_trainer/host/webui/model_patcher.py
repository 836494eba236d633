"""LoRAs as ComfyUI's `ModelPatcher` holds them: patches of a copy, merged into the weights when the model is moved.

Forge Neo and reForge share it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

# Attributes of a layer whose LoRAs are merged in every forward, and of one that was moved in part.
_FUNCTIONS = ("weight_function", "bias_function")


def forget_loras(loaded: Any) -> Any:
    """The loaded checkpoint forgets which LoRAs it is drawn with; its original objects come back.

    Args:
        loaded: of any program of the Forge family.
    """
    original = loaded.forge_objects_original
    loaded.forge_objects = original.shallow_copy()
    loaded.forge_objects_after_applying_lora = original.shallow_copy()
    loaded.current_lora_hash = str([])
    return original


def unpatch(loaded: Any, memory_management: Any) -> None:
    """Weights as the checkpoint has them, whatever was merged into them and however far a merge came.

    Args:
        memory_management: the program's module that moves models.
    """
    # Backups are shared by all copies of a patcher, those that a prompt made included.
    used = [loaded.forge_objects, loaded.forge_objects_after_applying_lora, forget_loras(loaded)]
    patchers = {id(patcher): patcher for each in used for patcher in (each.unet, each.clip.patcher)}
    with torch.inference_mode():
        memory_management.unload_all_models()
        for patcher in patchers.values():
            patcher.detach()
            for part in patcher.model.modules():
                _drop_functions(part)


def _drop_functions(part: nn.Module) -> None:
    """What a fully loaded model merges in each forward is left on its layers when it is taken off the device."""
    for name in _FUNCTIONS:
        if getattr(part, name, None):
            setattr(part, name, [])

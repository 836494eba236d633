"""What training would find in A1111, of a checkpoint that is loaded or only selected, without borrowing it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib_trainer.errors import UserError
from lib_trainer.models.checkpoint_file import UNET, read_single_file, unet_config, unet_shape
from lib_trainer.models.families import Family
from lib_trainer.models.placement import MemoryProfile

# Weights in these formats can be stored in another and given back.
_PLAIN = (torch.float32, torch.float16, torch.bfloat16)


def profile_of_model(model: Any, family: Family) -> MemoryProfile:
    """What A1111 holds of the loaded checkpoint."""
    unet = model.model.diffusion_model
    shapes = {UNET + name: tuple(tensor.shape) for name, tensor in unet.state_dict().items()}
    weights = [part.weight for part in unet.modules() if len(dense_shape(part)) in (2, 4)]
    stored = sum(weight.nbytes for weight in weights) / sum(weight.numel() for weight in weights)
    plain = all(weight.dtype in _PLAIN for weight in weights)
    return _with_room(
        MemoryProfile(family, unet_shape(unet_config(shapes, family), family), stored, is_dense=plain), [model]
    )


def profile_of_file(path: Path, loaded: Iterable[nn.Module]) -> MemoryProfile | None:
    """What A1111 will hold of a checkpoint that it has not loaded yet; None for a file that is none of ours to train.

    Args:
        loaded: the models that will make room for it.
    """
    from modules import shared

    try:
        layout = read_single_file(path)
    except (UserError, OSError):
        return None
    shape = unet_shape(layout.configs["unet"], layout.family)
    return _with_room(MemoryProfile(layout.family, shape, 4.0 if shared.cmd_opts.no_half else 2.0), loaded)


def dense_shape(module: nn.Module) -> tuple[int, ...]:
    """Shape of the weight of a linear layer or 2-d convolution; () for other modules."""
    return tuple(module.weight.shape) if isinstance(module, nn.Linear | nn.Conv2d) else ()


def _with_room(memory_profile: MemoryProfile, models: Iterable[nn.Module]) -> MemoryProfile:
    """With what the device has, all of A1111's models off it."""
    from modules import devices

    device = torch.device(devices.device)
    if device.type != "cuda":
        return memory_profile
    held = sum(tensor.nbytes for model in models for tensor in model.parameters() if tensor.device.type == "cuda")
    free, total = torch.cuda.mem_get_info(device)
    # What the allocator keeps for later is free as well.
    spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return replace(memory_profile, available_bytes=free + spare + held, total_bytes=total)

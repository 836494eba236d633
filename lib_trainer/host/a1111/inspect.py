"""What training would find in A1111, from a loaded or only selected checkpoint, without opening the model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib_trainer.errors import UserError
from lib_trainer.models.checkpoint_file import UNET, read_single_file, unet_config, unet_shape
from lib_trainer.models.device import DTYPES
from lib_trainer.models.families import Family
from lib_trainer.models.placement import MemoryProfile


def profile_of_model(model: Any, family: Family) -> MemoryProfile:
    """What A1111 holds of the loaded checkpoint."""
    unet = model.model.diffusion_model
    # A1111 keeps no configuration that tells the measures of a UNet; the shapes of its weights do.
    shapes = {UNET + name: tuple(tensor.shape) for name, tensor in unet.state_dict().items()}
    weights = [part.weight for part in unet.modules() if len(dense_shape(part)) in (2, 4)]
    stored = sum(weight.nbytes for weight in weights) / sum(weight.numel() for weight in weights)
    # With its option for fp8 weights, A1111 stores linear layers and convolutions as float8.
    plain = all(weight.dtype in DTYPES.values() for weight in weights)
    shape = unet_shape(unet_config(shapes, family), family)
    return _with_memory(MemoryProfile(family, shape, stored, is_dense=plain), [model])


def profile_of_file(path: Path, loaded: Iterable[nn.Module]) -> MemoryProfile | None:
    """What A1111 will hold of a checkpoint that is not loaded yet; None for a file that we cannot train.

    Args:
        loaded: the models that A1111 will unload for it.
    """
    from modules import shared

    try:
        layout = read_single_file(path)
    except (UserError, OSError):
        return None
    shape = unet_shape(layout.configs["unet"], layout.family)
    return _with_memory(MemoryProfile(layout.family, shape, 4.0 if shared.cmd_opts.no_half else 2.0), loaded)


def compute_device() -> torch.device:
    """The device that A1111 computes on, with its index: tensors on `cuda` and on `cuda:0` compare as elsewhere."""
    from modules import devices

    device = torch.device(devices.device)
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def device_memory() -> tuple[int, int] | None:
    """Free and total bytes of the device; None for a CPU. What torch's allocator keeps in reserve counts as free."""
    device = compute_device()
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device), total


def dense_shape(module: nn.Module) -> tuple[int, ...]:
    """Shape of the weight of a linear layer or 2-d convolution; () for other modules."""
    return tuple(module.weight.shape) if isinstance(module, nn.Linear | nn.Conv2d) else ()


def _with_memory(profile: MemoryProfile, models: Iterable[nn.Module]) -> MemoryProfile:
    """With the device's memory, counted as if all of A1111's models were off it: training moves them."""
    memory = device_memory()
    if memory is None:
        return profile
    held = sum(tensor.nbytes for model in models for tensor in model.parameters() if tensor.device.type == "cuda")
    free, total = memory
    return replace(profile, available_bytes=free + held, total_bytes=total)

"""What training would find in Forge, of a checkpoint that is loaded or only selected, without borrowing it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lib_trainer.errors import UserError
from lib_trainer.models.checkpoint_file import read_single_file, unet_shape
from lib_trainer.models.families import Family, UNetShape
from lib_trainer.models.placement import MemoryProfile

# Weights in these formats can be stored in another and given back.
_PLAIN = (torch.float32, torch.float16, torch.bfloat16)
_UNET_CHANNELS = 4
# Half a byte, and a float32 scale for every 64 numbers.
_FOUR_BIT_BYTES = 0.5 + 4 / 64


def refusal(engine: Any) -> str:
    """Why the loaded checkpoint of a known family cannot be trained, "" if it can: what follows its name."""
    model = engine.forge_objects_original.unet.model
    channels = model.diffusion_model.config["in_channels"]
    if engine.is_inpaint or channels != _UNET_CHANNELS:
        return f"is an inpainting or editing checkpoint: its UNet takes {channels} channels instead of {_UNET_CHANNELS}"
    if model.predictor.prediction_type == "const":
        return "is a rectified-flow checkpoint, which cannot be trained here"
    return ""


def profile_of_engine(engine: Any, family: Family) -> MemoryProfile:
    """What Forge holds of the loaded checkpoint."""
    unet = engine.forge_objects_original.unet.model.diffusion_model
    weights = [part.weight for part in unet.modules() if len(dense_shape(part)) in (2, 4)]
    numbers = sum(math.prod(dense_shape(part)) for part in unet.modules() if len(dense_shape(part)) in (2, 4))
    plain = all(type(weight) in (Tensor, nn.Parameter) and weight.dtype in _PLAIN for weight in weights)
    scaled = any(getattr(part, "scale_weight", None) is not None for part in unet.modules())
    stored = sum(map(_stored_bytes, weights)) / numbers
    return _with_room(MemoryProfile(family, _unet_shape(unet.config), stored, is_dense=plain and not scaled))


def profile_of_file(path: Path, storage: Any) -> MemoryProfile | None:
    """What Forge will hold of a checkpoint that it has not loaded yet; None for a file that is none of ours to train.

    Args:
        storage: Forge's choice in "Diffusion in Low Bits": a dtype, `nf4`, `fp4`, `gguf`, or None for automatic.
    """
    from backend import memory_management

    try:
        layout = read_single_file(path)
    except (UserError, OSError):
        return None
    on_cpu = memory_management.get_torch_device().type == "cpu"
    if storage is None:
        # Forge computes in float32 on a CPU, and in half precision elsewhere.
        weight_bytes = 4.0 if on_cpu else 2.0
    else:
        weight_bytes = float(storage.itemsize) if isinstance(storage, torch.dtype) else _FOUR_BIT_BYTES
    shape = unet_shape(layout.configs["unet"], layout.family)
    return _with_room(MemoryProfile(layout.family, shape, weight_bytes, is_dense=weight_bytes >= 2))


def _with_room(memory_profile: MemoryProfile) -> MemoryProfile:
    """With what the device has, all of Forge's models off it."""
    from backend import memory_management

    device = memory_management.get_torch_device()
    if device.type == "cpu":
        return memory_profile
    # A patcher may be gone already while its entry is still listed.
    models = [loaded.model.model for loaded in memory_management.current_loaded_models if loaded.model is not None]
    held = sum(p.nbytes for model in models for p in model.parameters() if p.device == device)
    free, total = memory_management.get_free_memory(device), memory_management.get_total_memory(device)
    return replace(memory_profile, available_bytes=free + held, total_bytes=total)


def _stored_bytes(weight: Tensor) -> int:
    """Of a weight, the scales of a low-bit one included."""
    scales = getattr(getattr(weight, "quant_state", None), "absmax", None)
    # ComfyUI's quantised weights tell the size that they stand for, GGUF's the shape.
    held = getattr(weight, "_qdata", weight.data)
    return held.nbytes + (0 if scales is None else scales.nbytes)


def _unet_shape(config: Mapping[str, Any]) -> UNetShape:
    """The measures of a UNet, from the configuration that Forge guessed for it."""
    channels = tuple(config["model_channels"] * mult for mult in config["channel_mult"])
    blocks = config["num_res_blocks"]
    count = blocks if isinstance(blocks, int) else blocks[0]
    head_width = config.get("num_head_channels", -1)
    heads = tuple(config["num_heads"] if head_width == -1 else width // head_width for width in channels)
    return UNetShape(
        channels,
        count,
        tuple(config["transformer_depth"][::count]),
        config["transformer_depth_middle"],
        config["context_dim"],
        heads,
        linear_projection=bool(config.get("use_linear_in_transformer")),
        pooled_dim=config.get("adm_in_channels") or 0,
    )


def dense_shape(module: nn.Module) -> tuple[int, ...]:
    """Shape of the weight of a linear layer or 2-d convolution, however it is stored; () for other modules."""
    weight = module._parameters.get("weight")
    weight = getattr(module, "weight", None) if weight is None else weight
    if weight is None or isinstance(module, nn.Embedding | nn.LayerNorm | nn.GroupNorm):
        return ()
    state = getattr(weight, "quant_state", None)
    if state is not None:
        return tuple(state.shape)
    return tuple(weight.shape) if weight.ndim in (2, 4) else ()

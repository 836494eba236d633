"""What training would find in Forge, from a loaded or only selected checkpoint, without opening the model."""

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
from lib_trainer.models.device import DTYPES
from lib_trainer.models.families import Family, TransformerShape, UNetShape
from lib_trainer.models.placement import MemoryProfile
from lib_trainer.models.transformer_file import FOUR_BIT_BYTES, read_transformer_file
from lib_trainer.models.transformer_layers import is_adapted, transformer_layers, transformer_shape

_EMBEDDERS = ("img_in", "x_embedder")
_EDITING = "kontext"


def refusal(engine: Any, family: Family) -> str:
    """Why the loaded checkpoint of a known family cannot be trained, "" if it can: what follows its name."""
    model = engine.forge_objects_original.unet.model
    if family.is_flow:
        return _transformer_refusal(engine, family)
    channels = model.diffusion_model.config["in_channels"]
    if engine.is_inpaint or channels != family.shape.latent_channels:
        usual = family.shape.latent_channels
        return f"is an inpainting or editing checkpoint: its UNet takes {channels} channels instead of {usual}"
    # Neo runs a file with "rectified" in its path as a flow model on the SDXL engine; training it as ε would ruin it.
    prediction = model.predictor.prediction_type
    if prediction == "const":
        return "is a rectified-flow checkpoint, which cannot be trained here"
    return "" if prediction in ("epsilon", "v_prediction") else _other_prediction(prediction)


def _other_prediction(prediction: str) -> str:
    return f"predicts {prediction}, which cannot be trained here"


def _transformer_refusal(engine: Any, family: Family) -> str:
    model = engine.forge_objects_original.unet.model
    if model.predictor.prediction_type != "const":
        return _other_prediction(model.predictor.prediction_type)
    transformer = model.diffusion_model
    if not transformer_layers(transformer, family, dense_shape):
        return f"holds its weights as {type(transformer).__name__}, which cannot be trained on"
    # Lumina and Flux call the layer that reads the latents so; for Anima Neo itself takes no other latents.
    first = next((getattr(transformer, name) for name in _EMBEDDERS if hasattr(transformer, name)), None)
    shape = () if first is None else dense_shape(first)
    patch = family.shape.latent_channels * family.shape.patch**2
    if shape and shape[1] != patch:
        return f"is an inpainting or editing checkpoint: a token has {shape[1]} values instead of {patch}"
    # Flux Kontext has Flux's layout. Neo knows it by its name as well.
    if _EDITING in engine.sd_checkpoint_info.name.lower():
        return "is an editing checkpoint, which learns from pairs of pictures"
    return ""


def profile_of_engine(engine: Any, family: Family) -> MemoryProfile:
    """What Forge holds of the loaded checkpoint."""
    unet = engine.forge_objects_original.unet.model.diffusion_model
    layers = [part for part in unet.modules() if len(dense_shape(part)) in (2, 4)]
    weights = [layer.weight for layer in layers]
    parameters = sum(math.prod(dense_shape(layer)) for layer in layers)
    # 4-bit and GGUF weights are subclasses of Parameter; scaled fp8 has a second parameter beside its weight.
    plain = all(type(weight) in (Tensor, nn.Parameter) and weight.dtype in DTYPES.values() for weight in weights)
    scaled = any(getattr(part, "scale_weight", None) is not None for part in unet.modules())
    stored = sum(map(_stored_bytes, weights)) / parameters
    if family.is_flow:
        shapes = {name: dense_shape(part) for name, part in unet.named_modules() if is_adapted(name, family)}
        shape: UNetShape | TransformerShape = transformer_shape(shapes, family)
    else:
        shape = _unet_shape(unet.config)
    return _with_memory(MemoryProfile(family, shape, stored, is_dense=plain and not scaled))


def profile_of_file(path: Path, storage: Any) -> MemoryProfile | None:
    """What Forge will hold of a checkpoint that is not loaded yet; None for a file that we cannot train.

    Args:
        storage: Forge's choice in "Diffusion in Low Bits": a dtype, `nf4`, `fp4`, `gguf`, or None for automatic.
    """
    try:
        family, shape, stored = _read_file(path)
    except (UserError, OSError):
        return None
    if storage is not None:
        weight_bytes = float(storage.itemsize) if isinstance(storage, torch.dtype) else FOUR_BIT_BYTES
    elif stored < 2:
        # What comes in 8 or 4 bits is held as it is.
        weight_bytes = stored
    else:
        # Forge computes in float32 on a CPU, and in half precision elsewhere.
        weight_bytes = 4.0 if device_memory() is None else 2.0
    return _with_memory(MemoryProfile(family, shape, weight_bytes, is_dense=weight_bytes >= 2))


def _read_file(path: Path) -> tuple[Family, UNetShape | TransformerShape, float]:
    """Family, measures and bytes a parameter of a checkpoint. Raises UserError, OSError."""
    try:
        found = read_transformer_file(path)
    except UserError:
        layout = read_single_file(path)
        return layout.family, unet_shape(layout.configs["unet"], layout.family), 2.0
    return found.family, found.shape, found.weight_bytes


def device_memory() -> tuple[int, int] | None:
    """Free and total bytes of the device; None for a CPU. What torch's allocator keeps in reserve counts as free."""
    from backend import memory_management

    device = memory_management.get_torch_device()
    if device.type == "cpu":
        return None
    return memory_management.get_free_memory(device), memory_management.get_total_memory(device)


def dense_shape(module: nn.Module) -> tuple[int, ...]:
    """Shape of the dense weight of a linear layer or 2-d convolution, however it is stored; () for other modules."""
    # Forge's Linear is not a subclass of torch's, so layers are told by their weights, not by their class. A weight
    # that is not a Parameter is a plain attribute.
    weight = module._parameters.get("weight")
    weight = getattr(module, "weight", None) if weight is None else weight
    if weight is None or isinstance(module, nn.Embedding | nn.LayerNorm | nn.GroupNorm):
        return ()
    # A 4-bit weight is one flat row of bytes; bitsandbytes notes the real shape beside it.
    state = getattr(weight, "quant_state", None)
    if state is not None:
        return tuple(state.shape)
    return tuple(weight.shape) if weight.ndim in (2, 4) else ()


def _with_memory(profile: MemoryProfile) -> MemoryProfile:
    """With the device's memory, counted as if all of Forge's models were off it: training moves them."""
    from backend import memory_management

    memory = device_memory()
    if memory is None:
        return profile
    device = memory_management.get_torch_device()
    # A patcher may be gone already while its entry is still listed.
    models = [loaded.model.model for loaded in memory_management.current_loaded_models if loaded.model is not None]
    held = sum(p.nbytes for model in models for p in model.parameters() if p.device == device)
    free, total = memory
    return replace(profile, available_bytes=free + held, total_bytes=total)


def _stored_bytes(weight: Tensor) -> int:
    """Of a weight, including the scales of a 4-bit one."""
    scales = getattr(getattr(weight, "quant_state", None), "absmax", None)
    # ComfyUI's quantised weights report the size that they stand for, GGUF's the shape.
    held = getattr(weight, "_qdata", weight.data)
    return held.nbytes + (0 if scales is None else scales.nbytes)


def _unet_shape(config: Mapping[str, Any]) -> UNetShape:
    """The measures of a UNet, from the LDM configuration that Forge guessed from the file."""
    channels = tuple(config["model_channels"] * mult for mult in config["channel_mult"])
    blocks = config["num_res_blocks"]
    count = blocks if isinstance(blocks, int) else blocks[0]
    # SD 1.x fixes the number of heads, SD 2.x and SDXL their width.
    head_width = config.get("num_head_channels", -1)
    heads = tuple(config["num_heads"] if head_width == -1 else width // head_width for width in channels)
    return UNetShape(
        channels,
        count,
        # One entry for each residual block; those of a level are the same.
        tuple(config["transformer_depth"][::count]),
        config["transformer_depth_middle"],
        config["context_dim"],
        heads,
        linear_projection=bool(config.get("use_linear_in_transformer")),
        pooled_dim=config.get("adm_in_channels") or 0,
    )

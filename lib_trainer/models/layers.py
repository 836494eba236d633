"""The layers of an LDM UNet, and of CLIP text encoders, that kohya + LyCORIS adapt."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from lib_trainer.models.base import Layer
from lib_trainer.models.families import SDXL, Family
from lib_trainer.models.layer_names import diffusers_names, kohya_name

_BLOCKS = ("SpatialTransformer", "ResBlock", "Downsample", "Upsample")

# kohya + LyCORIS adapt these as well on SD 1.x and 2.x, by their diffusers names.
_SINGLE_LAYERS = ("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2")

_CLIP_PREFIXES = {"clip_l": "lora_te1_", "clip_g": "lora_te2_"}
_TEXT_LAYERS = re.compile(r"text_model\.encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])")


def unet_layers(unet: nn.Module, family: Family, shape_of: Callable[[nn.Module], tuple[int, ...]]) -> list[Layer]:
    """The layers of an LDM UNet that kohya + LyCORIS adapt, under their kohya names.

    Args:
        unet: the host's UNet with LDM names (`input_blocks.…`).
        shape_of: module -> shape of its dense weight, () for other modules than linear layers and convolutions.
    """
    shapes = {name: shape_of(module) for name, module in unet.named_modules()}
    weighted = [name for name, shape in shapes.items() if len(shape) in (2, 4)]
    # LyCORIS adapts every layer inside these block classes; time embeddings and output stay out.
    inside = {f"{name}." for name, module in unet.named_modules() if type(module).__name__ in _BLOCKS}
    modules = dict(unet.named_modules())
    layers = []
    # kohya names SDXL's layers as LDM does, those of SD 1.x and 2.x as diffusers.
    file_names = {name: name for name in weighted} if family is SDXL else diffusers_names(weighted)
    for name in weighted:
        in_block = any(name.startswith(prefix) for prefix in inside)
        if in_block or (family is not SDXL and file_names[name] in _SINGLE_LAYERS):
            layers.append(describe_layer(kohya_name(file_names[name]), modules[name], shapes[name]))
    return layers


def unet_norms(unet: nn.Module, family: Family) -> list[Layer]:
    """The norms of an LDM UNet that LyCORIS trains with `train_norm`: those inside of its blocks, by kohya's names."""
    modules = {name: part for name, part in unet.named_modules() if isinstance(part, nn.GroupNorm | nn.LayerNorm)}
    inside = tuple(f"{name}." for name, part in unet.named_modules() if type(part).__name__ in _BLOCKS)
    names = [name for name, part in modules.items() if name.startswith(inside) and part.weight is not None]
    # The downsamplers tell how many blocks a level has.
    downsamplers = [name for name, _ in unet.named_modules() if name.endswith(".op")]
    file_names = {name: name for name in names} if family is SDXL else diffusers_names([*names, *downsamplers])
    return [describe_norm(kohya_name(file_names[name]), modules[name]) for name in names]


def clip_layers(encoders: nn.Module, family: Family, shape_of: Callable[[nn.Module], tuple[int, ...]]) -> list[Layer]:
    """The layers of the text encoders of a program of the Forge family.

    Args:
        encoders: with one child for each encoder, named `clip_l`, `clip_g` or `clip_h`.
    """
    layers = []
    for name, encoder in encoders.named_children():
        prefix = _CLIP_PREFIXES.get(name, "lora_te_") if family is SDXL else "lora_te_"
        layers += text_encoder_layers(encoder, prefix, shape_of)
    return layers


def text_encoder_layers(
    encoder: nn.Module, prefix: str, shape_of: Callable[[nn.Module], tuple[int, ...]]
) -> list[Layer]:
    """The attention and MLP layers of one CLIP text encoder. `prefix`: `lora_te_`, `lora_te1_` or `lora_te2_`."""
    layers = []
    for name, module in encoder.named_modules():
        # Hosts wrap the encoder at different depths, so the name is matched from its end.
        match = _TEXT_LAYERS.search(name)
        if match and match.end() == len(name):
            layers.append(describe_layer(kohya_name(match[0], prefix), module, shape_of(module)))
    return layers


def describe_layer(name: str, module: nn.Module, shape: tuple[int, ...]) -> Layer:
    """The layer of this kohya name and dense shape."""
    if len(shape) == 2:
        return Layer(name, module, "linear", shape)
    return Layer(name, module, "conv2d", shape, module.stride, module.padding, module.dilation, module.groups)


def describe_norm(name: str, module: nn.GroupNorm | nn.LayerNorm) -> Layer:
    """The norm of this kohya name."""
    groups = module.num_groups if isinstance(module, nn.GroupNorm) else 0
    return Layer(name, module, "norm", tuple(module.weight.shape), groups=groups, eps=module.eps)

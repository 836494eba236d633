"""What the WebUIs share: their captions, their places, and the layers of an LDM UNet."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from torch import nn

from lib_trainer.families import SDXL, Family
from lib_trainer.host.base import Layer
from lib_trainer.host.names import diffusers_names, kohya_name

_BLOCKS = ("SpatialTransformer", "ResBlock", "Downsample", "Upsample")
# kohya + LyCORIS adapt these as well on SD 1.x and 2.x, by their diffusers names.
_SINGLE_LAYERS = ("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2")
_TEXT_LAYERS = re.compile(r"text_model\.encoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12])")
_ESCAPED_BRACKET = re.compile(r"\\([()\[\]])")


def literal_caption(caption: str) -> str:
    """A caption's very words: brackets that were escaped for the prompt syntax lose their backslash."""
    return _ESCAPED_BRACKET.sub(r"\1", caption)


def unet_layers(unet: nn.Module, family: Family, shape_of: Callable[[nn.Module], tuple[int, ...]]) -> list[Layer]:
    """The layers of an LDM UNet that kohya + LyCORIS adapt, under their kohya names.

    Args:
        unet: the host's UNet with LDM names (`input_blocks.…`).
        shape_of: module -> shape of its dense weight, () for a module that is no linear layer or convolution.
    """
    shapes = {name: shape_of(module) for name, module in unet.named_modules()}
    weighted = [name for name, shape in shapes.items() if len(shape) in (2, 4)]
    inside = {f"{name}." for name, module in unet.named_modules() if type(module).__name__ in _BLOCKS}
    modules = dict(unet.named_modules())
    layers = []
    file_names = {name: name for name in weighted} if family is SDXL else diffusers_names(weighted)
    for name in weighted:
        in_block = any(name.startswith(prefix) for prefix in inside)
        if in_block or (family is not SDXL and file_names[name] in _SINGLE_LAYERS):
            layers.append(describe_layer(kohya_name(file_names[name]), modules[name], shapes[name]))
    return layers


def text_encoder_layers(
    encoder: nn.Module, prefix: str, shape_of: Callable[[nn.Module], tuple[int, ...]]
) -> list[Layer]:
    """The attention and MLP layers of one CLIP text encoder. `prefix`: `lora_te_`, `lora_te1_` or `lora_te2_`."""
    layers = []
    for name, module in encoder.named_modules():
        match = _TEXT_LAYERS.search(name)
        if match and match.end() == len(name):
            layers.append(describe_layer(kohya_name(match[0], prefix), module, shape_of(module)))
    return layers


def describe_layer(name: str, module: nn.Module, shape: tuple[int, ...]) -> Layer:
    if len(shape) == 2:
        return Layer(name, module, "linear", shape)
    return Layer(name, module, "conv2d", shape, module.stride, module.padding, module.dilation, module.groups)


def forget_prompts() -> None:
    """Drops the cached conditioning of the last prompts, which knows LoRAs by name only."""
    from modules import processing

    for kind in (
        processing.StableDiffusionProcessing,
        processing.StableDiffusionProcessingTxt2Img,
        processing.StableDiffusionProcessingImg2Img,
    ):
        for cache in ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc"):
            if hasattr(kind, cache):
                setattr(kind, cache, [None] * len(getattr(kind, cache)))


def lora_dir() -> Path:
    from modules import shared

    return Path(shared.cmd_opts.lora_dir)


def cache_dir() -> Path:
    """Where encoded pictures are kept: in the WebUI's data folder, never among a person's pictures."""
    from modules.paths_internal import data_path

    return Path(data_path) / "cache" / "train_lora"


def settings_file() -> Path:
    from modules.paths_internal import data_path

    return Path(data_path) / "train_lora.json"


def release(modules: Iterable[nn.Module]) -> None:
    """Drops what autograd left behind."""
    for module in modules:
        for parameter in module.parameters():
            parameter.grad = None
    gc.collect()

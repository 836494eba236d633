"""Where each adaptable layer's weight lies in the single file of an SD 1.x, SD 2.x or SDXL checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lib_trainer.models.families import SDXL, Family
from lib_trainer.models.layer_names import diffusers_names, kohya_name

_UNET = "model.diffusion_model."
_NORM = re.compile(
    re.escape(_UNET) + r"(?:input|output|middle)_blocks?\..*(?:in_layers\.0|out_layers\.0|\.norm[123]?)\.weight"
)
_CLIP = re.compile(
    r"(?:cond_stage_model|conditioner\.embedders\.0)\.transformer\.(text_model\.encoder\.layers\..+)\.weight"
)
_OPEN_CLIP = re.compile(
    r"(?:cond_stage_model|conditioner\.embedders\.1)\.model\.transformer\.resblocks\.(\d+)\."
    r"(attn\.in_proj_weight|attn\.out_proj\.weight|mlp\.c_fc\.weight|mlp\.c_proj\.weight)"
)
_PARTS = {
    "attn.in_proj_weight": ("self_attn_q_proj", "self_attn_k_proj", "self_attn_v_proj"),
    "attn.out_proj.weight": ("self_attn_out_proj",),
    "mlp.c_fc.weight": ("mlp_fc1",),
    "mlp.c_proj.weight": ("mlp_fc2",),
}


@dataclass(frozen=True)
class WeightRows:
    """The rows of a tensor that are one layer's weight; of a norm, `bias_key` is its bias."""

    key: str
    first_row: int
    rows: int
    bias_key: str = ""


def weight_rows(shapes: Mapping[str, tuple[int, ...]], family: Family) -> dict[str, WeightRows]:
    """kohya's layer name -> where its weight is, for every layer that an adapter may change.

    Args:
        shapes: of the file's tensors.
    """
    by_layer = _unet_rows(shapes, family)
    first, second = ("lora_te1_", "lora_te2_") if family is SDXL else ("lora_te_", "lora_te_")
    for key, shape in shapes.items():
        if (clip := _CLIP.fullmatch(key)) and len(shape) == 2:
            by_layer[kohya_name(clip[1], first)] = WeightRows(key, 0, shape[0])
        elif found := _OPEN_CLIP.fullmatch(key):
            names = _PARTS[found[2]]
            # OpenCLIP stacks the projections of query, key and value.
            rows = shape[0] // len(names)
            for index, name in enumerate(names):
                layer = f"{second}text_model_encoder_layers_{found[1]}_{name}"
                by_layer[layer] = WeightRows(key, index * rows, rows)
    return by_layer


def _unet_rows(shapes: Mapping[str, tuple[int, ...]], family: Family) -> dict[str, WeightRows]:
    layers = [
        key[len(_UNET) : -len(".weight")]
        for key, shape in shapes.items()
        if key.startswith(_UNET) and key.endswith(".weight") and len(shape) in (2, 4)
    ]
    names = {layer: layer for layer in layers} if family is SDXL else diffusers_names(layers)
    keys = {layer: f"{_UNET}{layer}.weight" for layer in layers}
    return {kohya_name(name): WeightRows(keys[layer], 0, shapes[keys[layer]][0]) for layer, name in names.items()}


def norm_rows(shapes: Mapping[str, tuple[int, ...]], family: Family) -> dict[str, WeightRows]:
    """kohya's name -> where weight and bias are, for the norms inside of a UNet's blocks."""
    keys = [key for key, shape in shapes.items() if _NORM.fullmatch(key) and len(shape) == 1]
    ldm = {key[len(_UNET) : -len(".weight")]: key for key in keys}
    downsamplers = [key[len(_UNET) : -len(".weight")] for key in shapes if key.startswith(_UNET) and ".op.w" in key]
    names = {name: name for name in ldm} if family is SDXL else diffusers_names([*ldm, *downsamplers])
    return {
        kohya_name(names[name]): WeightRows(key, 0, shapes[key][0], f"{key.removesuffix('weight')}bias")
        for name, key in ldm.items()
    }

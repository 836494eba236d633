"""The layers of a diffusion transformer that are adapted, under the names that sd-scripts and musubi-tuner write."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from lib_trainer.models.families import ANIMA, CHROMA, FLUX, KLEIN4B, KLEIN9B, LUMINA2, ZIMAGE, Family, TransformerShape
from lib_trainer.models.layers import describe_layer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from lib_trainer.models.base import Layer

# Attention and feed-forward layers of the blocks, as musubi-tuner adapts them, and sd-scripts for Anima. For Flux and
# Lumina sd-scripts adapts modulation as well, for Lumina also the refiners and the last layer.
_FLUX = r"double_blocks\.\d+\.(img|txt)_(attn\.(qkv|proj)|mlp\.[02])|single_blocks\.\d+\.linear[12]"
_LUMINA = r"layers\.\d+\.(attention\.(qkv|out)|feed_forward\.w[123])"
_ANIMA = r"blocks\.\d+\.((self|cross)_attn\.(q|k|v|output)_proj|mlp\.layer[12])"
_ADAPTED = {family: re.compile(_FLUX) for family in (FLUX, CHROMA, KLEIN4B, KLEIN9B)} | {
    ZIMAGE: re.compile(_LUMINA),
    LUMINA2: re.compile(_LUMINA),
    ANIMA: re.compile(_ANIMA),
}
_PREFIX = "lora_unet_"
# Queries, keys and values of Lumina's blocks; the last layer of each kind of feed-forward part, (width, width inside).
_JOINT_QKV = "attention.qkv"
_MLP_OUT = ("img_mlp.2", "feed_forward.w2", "mlp.layer2")
# The lists of blocks that hold them, in the order of forward, and the measure that counts each.
_REFINERS = ("noise_refiner", "context_refiner")
BLOCK_LISTS = {"double_blocks": "double", "single_blocks": "single", "layers": "joint", "blocks": "crossed"}


def transformer_layers(
    transformer: nn.Module, family: Family, shape_of: Callable[[nn.Module], tuple[int, ...]]
) -> list[Layer]:
    """The layers to be adapted, in the order of the model.

    Args:
        transformer: the host's, with the names of the family's own code (`double_blocks.…`).
        shape_of: module -> shape of its dense weight, () for a module that is not a linear layer.
    """
    named = [(name, module) for name, module in transformer.named_modules() if is_adapted(name, family)]
    return [describe_layer(file_name(name), module, shape_of(module)) for name, module in named if shape_of(module)]


def frozen_layers(
    transformer: nn.Module, family: Family, shape_of: Callable[[nn.Module], tuple[int, ...]]
) -> list[Layer]:
    """The other linear layers of the blocks: modulation, and the refiners in front of Lumina's blocks."""
    lists = (*BLOCK_LISTS, *_REFINERS)
    named = [(name, module) for name, module in transformer.named_modules() if name.partition(".")[0] in lists]
    kept = [(name, module) for name, module in named if not is_adapted(name, family) and len(shape_of(module)) == 2]
    return [describe_layer(file_name(name), module, shape_of(module)) for name, module in kept]


def is_adapted(name: str, family: Family) -> bool:
    """Whether a layer of this name (`double_blocks.0.img_attn.qkv`) is adapted."""
    return _ADAPTED[family].fullmatch(name) is not None


def file_name(name: str) -> str:
    """`double_blocks.0.img_attn.qkv` -> `lora_unet_double_blocks_0_img_attn_qkv`, its name in files."""
    return _PREFIX + name.replace(".", "_")


def family_of_file_name(name: str) -> tuple[Family, ...]:
    """The families that have a layer of this name in files; families of one layout share their names."""
    dotted = {family: pattern.pattern.replace(r"\.", "_") for family, pattern in _ADAPTED.items()}
    return tuple(family for family, pattern in dotted.items() if re.fullmatch(_PREFIX + f"({pattern})", name))


def transformer_shape(shapes: Mapping[str, tuple[int, ...]], family: Family) -> TransformerShape:
    """The measures of a transformer whose layers have these shapes, by their names in the model."""
    usual = family.shape
    counts = {
        measure: len({name.split(".")[1] for name in shapes if name.startswith(f"{blocks}.")})
        for blocks, measure in BLOCK_LISTS.items()
    }
    parts = {name: name.split(".", 2) for name in shapes}
    first = {rest[-1]: shapes[name] for name, (_, *rest) in parts.items() if rest[0] == "0"}
    width, mlp_width = next(first[name] for name in _MLP_OUT if name in first)
    heads = max(1, usual.heads * width // usual.width)
    kv_width = _kv_width(first[_JOINT_QKV][0], width) if _JOINT_QKV in first else usual.kv_width
    return replace(usual, width=width, heads=heads, mlp_width=mlp_width, kv_width=kv_width, **counts)


def _kv_width(rows: int, width: int) -> int:
    """Of keys and values in a layer that makes queries, keys and values of so many rows; 0 where it is `width`."""
    kv_width = (rows - width) // 2
    return 0 if kv_width == width else kv_width

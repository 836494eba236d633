"""Layer names: LDM's, which WebUIs use, diffusers', and kohya's in adapter files.

Stable Diffusion has two sets of names for the same UNet: LDM's (`input_blocks.4.1.proj_in`) and diffusers'
(`down_blocks.1.attentions.0.proj_in`). kohya names SD 1.x and 2.x adapters after diffusers and SDXL after LDM,
always with dots as underscores behind a prefix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

UNET_PREFIX = "lora_unet_"

_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ENDS = {
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
}
_LDM_RESNET = {diffusers: ldm for ldm, diffusers in _RESNET.items()}
_LDM_ENDS = {diffusers: ldm for ldm, diffusers in _ENDS.items()}
_BLOCK = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.(\d+)\.?(.*)|middle_block\.(\d+)\.(.*)")
_DIFFUSERS_BLOCK = re.compile(
    r"(?:(down|up)_blocks\.(\d+)|mid_block)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)"
)


def kohya_name(module_name: str, prefix: str = UNET_PREFIX) -> str:
    """`down_blocks.0.attentions.0.proj_in` -> `lora_unet_down_blocks_0_attentions_0_proj_in`."""
    return prefix + module_name.replace(".", "_")


def diffusers_names(ldm_names: Iterable[str]) -> dict[str, str]:
    """LDM module names of one whole UNet -> their diffusers names.

    Args:
        ldm_names: names of all layers that have weights; the block sizes are read from them.

    Raises:
        ValueError: for a name that no Stable Diffusion UNet has.
    """
    names = list(ldm_names)
    per_level = _blocks_per_level(names)
    return {name: _diffusers_name(name, per_level) for name in names}


def _blocks_per_level(names: list[str]) -> int:
    """Entries of `input_blocks` in one level, its downsampler included: the first downsampler ends the first level."""
    # Small test checkpoints have fewer blocks a level than Stable Diffusion.
    ends = sorted(int(name.split(".")[1]) for name in names if re.fullmatch(r"input_blocks\.\d+\.0\.op", name))
    if ends:
        return ends[0]
    # A single level has no downsampler.
    return 1 + max((int(m[1]) for name in names if (m := re.match(r"input_blocks\.(\d+)\.", name))), default=0)


def _diffusers_name(name: str, per_level: int) -> str:
    if name in _ENDS:
        return _ENDS[name]
    match = _BLOCK.fullmatch(name)
    if not match:
        raise ValueError(f"{name!r} is not a layer of a Stable Diffusion UNet")
    side, number, part, rest, middle, middle_rest = match.groups()
    if middle is not None:
        # middle_block is residual, transformer, residual: 0, 1, 2.
        kind = "attentions.0" if middle == "1" else f"resnets.{int(middle) // 2}"
        return f"mid_block.{kind}.{_RESNET.get(middle_rest, middle_rest)}"
    # `input_blocks.0` is conv_in, so the first level begins at 1.
    index = int(number) - 1 if side == "input_blocks" else int(number)
    level, position = divmod(index, per_level)
    block = f"{'down' if side == 'input_blocks' else 'up'}_blocks.{level}"
    if rest == "op":
        return f"{block}.downsamplers.0.conv"
    if rest == "conv":
        return f"{block}.upsamplers.0.conv"
    if part == "0":
        return f"{block}.resnets.{position}.{_RESNET.get(rest, rest)}"
    return f"{block}.attentions.{position}.{rest}"


def ldm_names(diffusers_names: Iterable[str]) -> dict[str, str]:
    """diffusers module names of one whole UNet -> their LDM names: the way back from `diffusers_names`.

    Args:
        diffusers_names: names of all layers that have weights; the block sizes are read from them.

    Raises:
        ValueError: for a name that no Stable Diffusion UNet has.
    """
    names = list(diffusers_names)
    resnets = [int(m[1]) for name in names if (m := re.match(r"down_blocks\.\d+\.resnets\.(\d+)\.", name))]
    # An upsampler follows its level's attention where there is one, else the residual block.
    attended = {int(m[1]) for name in names if (m := re.match(r"up_blocks\.(\d+)\.attentions\.", name))}
    return {name: _ldm_name(name, max(resnets, default=0) + 2, attended) for name in names}


def _ldm_name(name: str, per_level: int, attended: set[int]) -> str:
    if name in _LDM_ENDS:
        return _LDM_ENDS[name]
    match = _DIFFUSERS_BLOCK.fullmatch(name)
    if not match:
        raise ValueError(f"{name!r} is not a layer of a Stable Diffusion UNet")
    side, level, kind, position, rest = match.groups()
    if kind == "resnets":
        rest = _LDM_RESNET.get(rest, rest)
    if side is None:
        return f"middle_block.{2 * int(position) if kind == 'resnets' else 1}.{rest}"
    # LDM counts blocks through all levels; input block 0 is the first convolution.
    first = int(level) * per_level + (1 if side == "down" else 0)
    block = f"{'input' if side == 'down' else 'output'}_blocks.{first + int(position)}"
    if kind == "downsamplers":
        return f"input_blocks.{first + per_level - 1}.0.op"
    # Behind the block's resnet, and its transformer where the level has one.
    if kind == "upsamplers":
        return f"output_blocks.{first + per_level - 1}.{2 if int(level) in attended else 1}.conv"
    return f"{block}.{0 if kind == 'resnets' else 1}.{rest}"


def diffusers_file_names(layers: Iterable[str]) -> dict[str, str]:
    """diffusers' name in a file -> the name here, for every layer of a UNet whose files have LDM names (SDXL)."""
    dotted = {name: found for name in layers if (found := _dotted(name.removeprefix(UNET_PREFIX)))}
    if not dotted:
        return {}
    per_level = _blocks_per_level(list(dotted.values()))
    return {kohya_name(_diffusers_name(ldm, per_level)): name for name, ldm in dotted.items()}


def _dotted(name: str) -> str:
    """`input_blocks_4_1_proj_in` -> `input_blocks.4.1.proj_in`; "" for what is not an LDM name.

    Only the dots that `_diffusers_name` looks at come back: the others become underscores again anyway.
    """
    ends = {ldm.replace(".", "_"): ldm for ldm in _ENDS}
    if name in ends:
        return ends[name]
    match = re.fullmatch(r"(input_blocks|output_blocks)_(\d+)_(\d+)_(.+)|middle_block_(\d+)_(.+)", name)
    if not match:
        return ""
    side, number, part, rest, middle, middle_rest = match.groups()
    inner = {ldm.replace(".", "_"): ldm for ldm in _RESNET}
    if middle is not None:
        return f"middle_block.{middle}.{inner.get(middle_rest, middle_rest)}"
    return f"{side}.{number}.{part}.{inner.get(rest, rest)}"

"""The rank, alpha and rate of each layer, by its name and the recipe."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace

from lib_trainer.config.layers import PRESETS, SD_BLOCKS, SDXL_BLOCKS, LayerConfig, by_pattern, numbers
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.errors import UserError

_DIFFUSERS = re.compile(r"(down|up)_blocks_(\d+)_(resnets|attentions|upsamplers|downsamplers)_(\d+)_")
_LDM = re.compile(r"lora_unet_(input_blocks|middle_block|output_blocks)_(\d+)_")
_FIRST_LDM = {"input_blocks": 1, "middle_block": 10, "output_blocks": 13}
# Layers of a UNet outside of its transformers, by diffusers' and LDM's names.
_CONVBLOCK = re.compile(
    "_resnets_|samplers_|_conv_(in|out)$|_(in|out|emb)_layers_|_skip_connection|_blocks_\\d+_\\d_(op|conv)$|unet_out_2$"
)
_TIME = re.compile("_time_embed|_label_emb|_add_embedding")
_ATTENTION = re.compile("_attn[12]?_|_attention_")
_FILTERS = {item.name: item.default for item in fields(LayerConfig)}


@dataclass(frozen=True)
class LayerRule:
    """How one layer is adapted.

    Attributes:
        rank: 0 leaves it alone.
        weight: factor of the learning rate.
        rate: a learning rate of its own; None for that of its part of the model.
    """

    rank: int
    alpha: float
    weight: float = 1.0
    rate: float | None = None


def layer_rule(name: str, config: AdapterConfig, *, wide: bool) -> LayerRule:
    """The rule for a layer.

    Args:
        name: kohya's.
        wide: whether it is a k×k convolution; a 1×1 convolution counts as a linear layer.

    Raises:
        UserError: the recipe has block dims for a UNet with another number of blocks.
    """
    rank, alpha = (config.conv_dim, config.conv_alpha) if wide else (config.network_dim, config.network_alpha)
    if not _in_preset(name, config.lycoris_preset, wide=wide):
        return LayerRule(0, alpha)
    weight, block, blocks = 1.0, block_of(name), blocks_of(name)
    if block is not None:
        weight = config.block_weights(blocks)[block]
        dims, alphas = ("conv_block_dims", "conv_block_alphas") if wide else ("block_dims", "block_alphas")
        rank = round(_of_block(config, dims, block, blocks, rank))
        alpha = _of_block(config, alphas, block, blocks, alpha)
    # The first pattern that fits wins, also over ranks by block.
    for pattern, dim in by_pattern(config.network_reg_dims):
        if pattern.search(name):
            rank = round(dim)
            break
    rate = next((rate for pattern, rate in by_pattern(config.network_reg_lrs) if pattern.search(name)), None)
    # What would not learn gets no adapter: it would take memory and store zeros.
    return LayerRule(rank if weight and rate != 0 else 0, alpha, weight, rate)


def trains_norm(name: str, config: AdapterConfig) -> bool:
    """Whether the recipe trains the norm of this name: where it trains a linear layer of the same block."""
    # LyCORIS trains norms whatever the rank.
    return config.train_norm and layer_rule(name, replace(config, network_dim=1), wide=False).rank > 0


def config_of_layer(name: str, config: AdapterConfig, *, wide: bool) -> AdapterConfig | None:
    """The adapter of one layer as a recipe for any; equal for layers whose adapters have the same size.

    None for a layer that is left alone.
    """
    rank = layer_rule(name, config, wide=wide).rank
    return replace(config, **_FILTERS, network_dim=rank, conv_dim=rank) if rank else None


def block_of(name: str) -> int | None:
    """sd-scripts' number of a UNet layer's block; None for layers outside of all blocks, as of text encoders."""
    if ldm := _LDM.match(name):
        return _FIRST_LDM[ldm[1]] + int(ldm[2])
    if "mid_block_" in name:
        return SD_BLOCKS[0]
    if found := _DIFFUSERS.search(name):
        inner = 2 if found[3].endswith("samplers") else int(found[4])
        return (1 if found[1] == "down" else SD_BLOCKS[0] + 1) + 3 * int(found[2]) + inner
    return None


def blocks_of(name: str) -> tuple[int, int, int, bool]:
    """The blocks of the UNet that a layer belongs to: files of SDXL have LDM's names."""
    return SDXL_BLOCKS if _LDM.match(name) else SD_BLOCKS


def _of_block(
    config: AdapterConfig, field: str, block: int, blocks: tuple[int, int, int, bool], otherwise: float
) -> float:
    given = numbers(getattr(config, field))
    if not given:
        return otherwise
    expected = sum(blocks[:3]) + 2 * blocks[3]
    if len(given) != expected:
        raise UserError(f"{field} holds {len(given)} numbers; this model has {expected} blocks.", "Give one a block.")
    return given[block]


def _in_preset(name: str, preset: str, *, wide: bool) -> bool:
    kind, trains_text, trains_wide = PRESETS[preset]
    if wide and not trains_wide:
        return False
    if name.startswith("lora_te"):
        # The preset for attention leaves the MLPs of text encoders alone too.
        return trains_text and (kind != "attention" or "self_attn" in name)
    outside, convblock = bool(_TIME.search(name)), bool(_CONVBLOCK.search(name))
    fits = {
        "any": True,
        "attention": bool(_ATTENTION.search(name)),
        "transformer": not (outside or convblock),
        "convblock": convblock,
    }
    return fits[kind]

"""Layer names: diffusers ↔ LDM, both ways, on whole UNets of each family."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from diffusers import UNet2DConditionModel

from lib_trainer.models.layer_names import diffusers_names, kohya_name, ldm_names

SD15 = {"cross_attention_dim": 768}
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


def weighted_names(config: dict) -> list[str]:
    return _weighted_names(tuple(config.items()))


@cache
def _weighted_names(config: tuple) -> list[str]:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**dict(config))
    return [n for n, part in unet.named_modules() if isinstance(part, torch.nn.Linear | torch.nn.Conv2d)]


@pytest.mark.parametrize("config", [SD15, SDXL], ids=["sd15", "sdxl"])
def test_every_layer_comes_back_under_its_own_name(config):
    names = weighted_names(config)
    ldm = ldm_names(names)
    assert len(set(ldm.values())) == len(names)
    assert {theirs: ours for ours, theirs in diffusers_names(ldm.values()).items()} == ldm


@pytest.mark.parametrize(
    ("diffusers", "ldm"),
    [
        ("conv_in", "input_blocks.0.0"),
        ("add_embedding.linear_1", "label_emb.0.0"),
        ("down_blocks.0.downsamplers.0.conv", "input_blocks.3.0.op"),
        ("down_blocks.1.resnets.0.conv_shortcut", "input_blocks.4.0.skip_connection"),
        (
            "down_blocks.1.attentions.1.transformer_blocks.1.attn2.to_k",
            "input_blocks.5.1.transformer_blocks.1.attn2.to_k",
        ),
        ("mid_block.attentions.0.proj_in", "middle_block.1.proj_in"),
        ("mid_block.resnets.1.time_emb_proj", "middle_block.2.emb_layers.1"),
        ("up_blocks.0.upsamplers.0.conv", "output_blocks.2.2.conv"),
        ("up_blocks.2.resnets.2.conv2", "output_blocks.8.0.out_layers.3"),
    ],
)
def test_names_of_sdxl_are_those_of_stability_and_kohya(diffusers, ldm):
    assert ldm_names(weighted_names(SDXL))[diffusers] == ldm


def test_an_upsampler_follows_its_residual_block_where_a_level_has_no_attention():
    assert ldm_names(weighted_names(SD15))["up_blocks.0.upsamplers.0.conv"] == "output_blocks.2.1.conv"


def test_kohya_writes_dots_as_underscores():
    assert kohya_name("down_blocks.0.attentions.0.proj_in") == "lora_unet_down_blocks_0_attentions_0_proj_in"


def test_a_foreign_name_is_refused():
    with pytest.raises(ValueError, match=r"double_blocks\.0"):
        ldm_names(["double_blocks.0.img_attn.qkv"])
    with pytest.raises(ValueError, match=r"double_blocks\.0"):
        diffusers_names(["double_blocks.0.img_attn.qkv"])

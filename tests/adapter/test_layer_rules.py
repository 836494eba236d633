"""Which layers a preset, a pattern and a block choose; LyCORIS and sd-scripts are the oracle."""

from __future__ import annotations

import math

import pytest

from lib_trainer.adapter.layer_rules import block_of, config_of_layer, layer_rule
from lib_trainer.config.layers import SD_BLOCKS, SDXL_BLOCKS, weights
from lib_trainer.config.recipe import AdapterConfig, Recipe
from lib_trainer.errors import ConfigError, UserError

# name -> (k×k convolution, kind): one of each kind, under the names of SD 1.x and of SDXL.
LAYERS = {
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k": (False, "attention"),
    "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_out_0": (False, "attention"),
    "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_ff_net_0_proj": (False, "transformer"),
    "lora_unet_middle_block_1_proj_in": (False, "transformer"),
    "lora_unet_double_blocks_3_img_attn_qkv": (False, "attention"),
    "lora_unet_down_blocks_0_resnets_1_conv1": (True, "convblock"),
    "lora_unet_input_blocks_4_0_in_layers_2": (True, "convblock"),
    "lora_unet_down_blocks_1_resnets_0_time_emb_proj": (False, "convblock"),
    "lora_unet_output_blocks_3_0_emb_layers_1": (False, "convblock"),
    "lora_unet_up_blocks_0_upsamplers_0_conv": (True, "convblock"),
    "lora_unet_input_blocks_3_0_op": (True, "convblock"),
    "lora_unet_output_blocks_2_2_conv": (True, "convblock"),
    "lora_unet_conv_in": (True, "convblock"),
    "lora_unet_time_embedding_linear_1": (False, "time"),
    "lora_te_text_model_encoder_layers_0_self_attn_q_proj": (False, "text attention"),
    "lora_te2_text_model_encoder_layers_0_mlp_fc1": (False, "text"),
}
UNET = {"attention", "transformer", "convblock", "time"}
KINDS = {
    "full": (UNET | {"text", "text attention"}, True),
    "full-lin": (UNET | {"text", "text attention"}, False),
    "attn-mlp": ({"attention", "transformer", "text", "text attention"}, False),
    "attn-only": ({"attention", "text attention"}, False),
    "unet-only": (UNET, True),
    "unet-transformer-only": ({"attention", "transformer"}, False),
    "unet-convblock-only": ({"convblock"}, True),
}


@pytest.mark.parametrize("preset", KINDS)
def test_presets_choose_what_lycoris_chooses(preset: str) -> None:
    kinds, convolutions = KINDS[preset]
    config = AdapterConfig(lycoris_preset=preset)
    chosen = {name for name, (wide, _) in LAYERS.items() if layer_rule(name, config, wide=wide).rank}
    assert chosen == {name for name, (wide, kind) in LAYERS.items() if kind in kinds and (convolutions or not wide)}


def test_block_numbers_are_sd_scripts_ones() -> None:
    assert [block_of(name) for name in LAYERS] == [1, 5, 24, 11, None, 2, 5, 4, 16, 15, 4, 15, None, None, None, None]


def test_each_block_has_its_rank_and_alpha() -> None:
    dims, alphas = (",".join(str(start + n) for n in range(25)) for start in (1, 101))
    config = AdapterConfig(block_dims=dims, block_alphas=alphas, network_dim=77, network_alpha=3, conv_dim=9)
    rule = layer_rule("lora_unet_mid_block_attentions_0_proj_in", config, wide=False)
    assert (rule.rank, rule.alpha) == (13, 113)
    assert layer_rule("lora_unet_mid_block_resnets_0_conv1", config, wide=True).rank == 9
    assert layer_rule("lora_unet_conv_in", config, wide=False).rank == 77, "outside of all blocks"
    assert layer_rule("lora_te_text_model_encoder_layers_0_mlp_fc1", config, wide=False).rank == 77
    alone = config_of_layer("lora_unet_mid_block_attentions_0_proj_in", config, wide=False)
    assert (alone.network_dim, alone.block_dims) == (13, "")
    conv = AdapterConfig(conv_block_dims=",".join(["0"] * 12 + ["5"] + ["0"] * 12))
    assert layer_rule("lora_unet_mid_block_resnets_0_conv1", conv, wide=True).rank == 5
    assert layer_rule("lora_unet_down_blocks_0_resnets_1_conv1", conv, wide=True).rank == 0
    assert config_of_layer("lora_unet_down_blocks_0_resnets_1_conv1", conv, wide=True) is None
    with pytest.raises(UserError, match="this model has 23 blocks"):
        layer_rule("lora_unet_middle_block_1_proj_in", config, wide=False)


def test_the_first_pattern_that_fits_gives_the_rank() -> None:
    config = AdapterConfig(network_reg_dims=r"attn2_to_[kv]=4, attn=16, ff_net=0", network_dim=8)
    names = ("x_attn2_to_k", "x_attn2_to_q", "x_ff_net_0_proj", "x_proj_in")
    assert [layer_rule(f"lora_unet_{name}", config, wide=False).rank for name in names] == [4, 16, 0, 8]


def test_block_weights_are_filled_cut_and_drawn_as_sd_scripts_does() -> None:
    config = AdapterConfig(down_lr_weight="0.5,0.1", mid_lr_weight="2,3", up_lr_weight="zeros+.25")
    config = AdapterConfig(**{**config.__dict__, "block_lr_zero_threshold": 0.1})
    assert config.block_weights(SD_BLOCKS) == [0.5, 0.0, *[1.0] * 10, 2.0, *[0.25] * 12]
    assert config.block_weights(SDXL_BLOCKS) == [1.0, 0.5, 0.0, *[1.0] * 7, 2.0, 3.0, 1.0, *[0.25] * 9, 1.0]
    assert weights("sine", 3, 0.0) == pytest.approx([0.0, math.sin(math.pi / 4), 1.0])
    assert weights("cosine+.1", 3, 0.0) == pytest.approx([1.1, math.sin(math.pi / 4) + 0.1, 0.1])
    assert weights("linear", 3, 0.0) == [0.0, 0.5, 1.0] and weights("reverse_linear", 3, 0.0) == [1.0, 0.5, 0.0]


def test_what_learns_at_no_rate_is_not_adapted() -> None:
    config = AdapterConfig(down_lr_weight="zeros", network_reg_lrs="ff_net=0, proj_in=0.001")
    names = ("down_blocks_0_attentions_0_x", "up_blocks_0_attentions_0_x", "up_x_ff_net_0", "up_x_proj_in")
    ranks = [layer_rule(f"lora_unet_{name}", config, wide=False).rank > 0 for name in names]
    assert ranks == [False, True, False, True]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("network_reg_dims", "attn", "is not like REGEX=NUMBER"),
        ("network_reg_dims", "(=3", "is not a regular expression"),
        ("network_reg_lrs", "attn=fast", "is not a regular expression and a number"),
        ("block_dims", "1,2,3", "holds 3 numbers"),
        ("block_alphas", "one", "is not a list of numbers"),
        ("down_lr_weight", "steep", "is not a list of numbers"),
    ],
)
def test_what_cannot_be_read_is_said_at_its_field(field: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Recipe().with_values({field: value}).check(needs_name=False)
    assert said in caught.value.problems[field]

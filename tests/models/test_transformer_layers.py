"""The layers of transformers, on tensors without contents, beside what other trainers write for the same models."""

from __future__ import annotations

import re

import pytest
from torch import nn

from lib_trainer.models.families import ANIMA, CHROMA, FLUX, KLEIN4B, KLEIN9B, LUMINA2, ZIMAGE, Family
from lib_trainer.models.transformer_layers import family_of_file_name, is_adapted, transformer_layers, transformer_shape
from tests.models.transformers import LAYOUTS, tree

# Keys and shapes (out, in) that sd-scripts (networks/lora_flux.py, lora_lumina.py, lora_anima.py) and musubi-tuner
# (networks/lora_zimage.py, lora_flux_2.py) write for the same layers, read from their module lists.
WRITTEN = {
    FLUX: {
        "lora_unet_double_blocks_0_img_attn_qkv": (9216, 3072),
        "lora_unet_double_blocks_18_img_attn_proj": (3072, 3072),
        "lora_unet_double_blocks_0_img_mlp_0": (12288, 3072),
        "lora_unet_double_blocks_0_img_mlp_2": (3072, 12288),
        "lora_unet_double_blocks_0_txt_attn_qkv": (9216, 3072),
        "lora_unet_double_blocks_0_txt_attn_proj": (3072, 3072),
        "lora_unet_double_blocks_0_txt_mlp_0": (12288, 3072),
        "lora_unet_double_blocks_0_txt_mlp_2": (3072, 12288),
        "lora_unet_single_blocks_37_linear1": (21504, 3072),
        "lora_unet_single_blocks_0_linear2": (3072, 15360),
    },
    CHROMA: {
        "lora_unet_double_blocks_18_txt_mlp_2": (3072, 12288),
        "lora_unet_single_blocks_37_linear1": (21504, 3072),
    },
    KLEIN4B: {
        "lora_unet_double_blocks_4_img_mlp_0": (18432, 3072),
        "lora_unet_double_blocks_4_img_mlp_2": (3072, 9216),
        "lora_unet_single_blocks_19_linear1": (27648, 3072),
        "lora_unet_single_blocks_19_linear2": (3072, 12288),
    },
    KLEIN9B: {
        "lora_unet_double_blocks_7_txt_mlp_0": (24576, 4096),
        "lora_unet_single_blocks_23_linear2": (4096, 16384),
    },
    ZIMAGE: {
        "lora_unet_layers_0_attention_qkv": (11520, 3840),
        "lora_unet_layers_29_attention_out": (3840, 3840),
        "lora_unet_layers_0_feed_forward_w1": (10240, 3840),
        "lora_unet_layers_0_feed_forward_w2": (3840, 10240),
        "lora_unet_layers_0_feed_forward_w3": (10240, 3840),
    },
    LUMINA2: {
        "lora_unet_layers_25_attention_qkv": (3840, 2304),
        "lora_unet_layers_0_attention_out": (2304, 2304),
        "lora_unet_layers_0_feed_forward_w2": (2304, 9216),
    },
    ANIMA: {
        "lora_unet_blocks_27_self_attn_q_proj": (2048, 2048),
        "lora_unet_blocks_0_cross_attn_k_proj": (2048, 1024),
        "lora_unet_blocks_0_cross_attn_output_proj": (2048, 2048),
        "lora_unet_blocks_0_mlp_layer1": (8192, 2048),
    },
}
COUNTS = {
    FLUX: 19 * 8 + 38 * 2,
    CHROMA: 228,
    KLEIN4B: 5 * 8 + 20 * 2,
    KLEIN9B: 8 * 8 + 24 * 2,
    ZIMAGE: 150,
    LUMINA2: 130,
}
COUNTS[ANIMA] = 28 * 10
FAMILIES = list(WRITTEN)


def shape_of(module: nn.Module) -> tuple[int, ...]:
    return tuple(module.weight.shape) if isinstance(module, nn.Linear) else ()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.key)
def test_names_and_shapes_are_those_of_other_trainers(family: Family) -> None:
    layers = transformer_layers(tree(LAYOUTS[family]()), family, shape_of)
    found = {layer.name: layer.shape for layer in layers}
    assert len(layers) == len(found) == COUNTS[family]
    assert {name: found.get(name) for name in WRITTEN[family]} == WRITTEN[family]
    assert all(family in family_of_file_name(name) for name in found)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.key)
def test_measures_are_read_from_the_layers(family: Family) -> None:
    shapes = {name: shape for name, shape in LAYOUTS[family]().items() if is_adapted(name, family)}
    assert transformer_shape(shapes, family) == family.shape


def test_a_small_transformer_has_its_own_measures() -> None:
    shapes = {"double_blocks.0.img_mlp.2": (256, 1024), "double_blocks.1.img_mlp.2": (256, 1024)}
    small = transformer_shape({**shapes, "single_blocks.0.linear2": (256, 1280)}, FLUX)
    assert (small.width, small.heads, small.mlp_width, small.double, small.single) == (256, 2, 1024, 2, 1)
    shapes = {"layers.0.attention.qkv": (384, 192), "layers.0.feed_forward.w2": (192, 768)}
    small = transformer_shape(shapes, LUMINA2)
    assert (small.width, small.heads, small.kv_width, small.joint) == (192, 2, 96, 1)


def test_names_of_unets_are_no_transformers() -> None:
    assert family_of_file_name("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q") == ()


# All that the trainers write for one block: every linear layer below the classes that they name, less their patterns.
# sd-scripts 48d368fa: library/flux_models.py, DoubleStreamBlock and SingleStreamBlock; nothing is left out.
FLUX_BLOCKS = {
    "lora_unet_double_blocks_0_img_mod_lin": (18432, 3072),
    "lora_unet_double_blocks_0_img_attn_qkv": (9216, 3072),
    "lora_unet_double_blocks_0_img_attn_proj": (3072, 3072),
    "lora_unet_double_blocks_0_img_mlp_0": (12288, 3072),
    "lora_unet_double_blocks_0_img_mlp_2": (3072, 12288),
    "lora_unet_double_blocks_0_txt_mod_lin": (18432, 3072),
    "lora_unet_double_blocks_0_txt_attn_qkv": (9216, 3072),
    "lora_unet_double_blocks_0_txt_attn_proj": (3072, 3072),
    "lora_unet_double_blocks_0_txt_mlp_0": (12288, 3072),
    "lora_unet_double_blocks_0_txt_mlp_2": (3072, 12288),
    "lora_unet_single_blocks_0_linear1": (21504, 3072),
    "lora_unet_single_blocks_0_linear2": (3072, 15360),
    "lora_unet_single_blocks_0_modulation_lin": (9216, 3072),
}
# musubi-tuner 30c658c: zimage/zimage_model.py, ZImageTransformerBlock, without `_modulation` and `_refiner`.
ZIMAGE_BLOCK = {
    "lora_unet_layers_0_attention_to_q": (3840, 3840),
    "lora_unet_layers_0_attention_to_k": (3840, 3840),
    "lora_unet_layers_0_attention_to_v": (3840, 3840),
    "lora_unet_layers_0_attention_to_out_0": (3840, 3840),
    "lora_unet_layers_0_feed_forward_w1": (10240, 3840),
    "lora_unet_layers_0_feed_forward_w2": (3840, 10240),
    "lora_unet_layers_0_feed_forward_w3": (10240, 3840),
}


def first_blocks(family: Family) -> dict[str, tuple[int, ...]]:
    layers = transformer_layers(tree(LAYOUTS[family]()), family, shape_of)
    return {layer.name: layer.shape for layer in layers if re.search(r"(layers|blocks)_0_", layer.name)}


def test_a_block_of_flux_is_that_of_sd_scripts_without_its_modulation() -> None:
    assert first_blocks(FLUX) == {name: shape for name, shape in FLUX_BLOCKS.items() if not name.endswith("_lin")}


def test_a_block_of_z_image_is_that_of_musubi_with_q_k_v_as_one_layer() -> None:
    split = dict(ZIMAGE_BLOCK)
    parts = [split.pop(f"lora_unet_layers_0_attention_to_{part}") for part in "qkv"]
    split["lora_unet_layers_0_attention_qkv"] = (sum(rows for rows, _ in parts), parts[0][1])
    split["lora_unet_layers_0_attention_out"] = split.pop("lora_unet_layers_0_attention_to_out_0")
    assert first_blocks(ZIMAGE) == split

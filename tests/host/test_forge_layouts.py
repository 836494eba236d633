"""Full-size UNets with Forge's names, on the meta device: exactly the layers that kohya + LyCORIS adapt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from diffusers import UNet2DConditionModel

from lib_trainer.host.forge.inspect import dense_shape
from lib_trainer.models.base import Layer
from lib_trainer.models.families import SD1, SDXL, Family
from lib_trainer.models.layers import unet_layers
from tests.fakes.forge_room import fake_forge
from tests.models.test_layer_names import SD15
from tests.models.test_layer_names import SDXL as SDXL_DIFFUSERS

LDM = {
    SD1: {
        "model_channels": 320, "num_res_blocks": [2] * 4, "channel_mult": [1, 2, 4, 4], "context_dim": 768,
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    },
    SDXL: {
        "model_channels": 320, "num_res_blocks": [2] * 3, "channel_mult": [1, 2, 4], "context_dim": 2048,
        "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "adm_in_channels": 2816,
        "use_linear_in_transformer": True,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Family, list[Layer]]]:
    with fake_forge(tmp_path_factory.mktemp("forge"), "sd1.safetensors"):
        from backend.nn.unet import IntegratedUNet2DConditionModel
        from backend.operations import using_forge_operations
        from torch import nn

        found = {}
        for family, config in LDM.items():
            with torch.device("meta"), using_forge_operations(device="meta"):
                unet = IntegratedUNet2DConditionModel(4, out_channels=4, **config)
                for module in unet.modules():
                    if hasattr(module, "dummy"):
                        module.weight = nn.Parameter(torch.empty(module.out_features, module.in_features))
            found[family] = unet_layers(unet, family, dense_shape)
        yield found


def _wanted(config: dict, ends: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """kohya's targets in a diffusers UNet: four kinds of blocks, and the ends by name."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    blocks = ("Transformer2DModel", "ResnetBlock2D", "Downsample2D", "Upsample2D")
    inside = tuple(f"{name}." for name, module in unet.named_modules() if type(module).__name__ in blocks)
    weighted = {n: m for n, m in unet.named_modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)}
    return {
        "lora_unet_" + name.replace(".", "_"): tuple(module.weight.shape)
        for name, module in weighted.items()
        if name.startswith(inside) or name in ends
    }


def test_sd15_has_282_layers_by_their_diffusers_names(layers: dict[Family, list[Layer]]) -> None:
    ends = ("conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2")
    assert {layer.name: layer.shape for layer in layers[SD1]} == _wanted(SD15, ends)
    assert len(layers[SD1]) == 282


def test_sdxl_has_788_layers_by_their_ldm_names(layers: dict[Family, list[Layer]]) -> None:
    wanted = _wanted(SDXL_DIFFUSERS, ())
    assert len(layers[SDXL]) == len(wanted) == 788
    assert sorted(layer.shape for layer in layers[SDXL]) == sorted(wanted.values())
    names = {layer.name for layer in layers[SDXL]}
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q" in names
    assert "lora_unet_output_blocks_2_2_conv" in names
    assert not any(name.startswith(("lora_unet_time_embed", "lora_unet_label_emb", "lora_unet_out_")) for name in names)


def test_kinds_and_strides(layers: dict[Family, list[Layer]]) -> None:
    found = {layer.name: layer for layer in layers[SD1]}
    down = found["lora_unet_down_blocks_0_downsamplers_0_conv"]
    assert (down.kind, down.stride, down.padding) == ("conv2d", (2, 2), (1, 1))
    assert found["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"].kind == "linear"

"""All of a full-size SDXL's layers are known to Forge by the names that we write."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from lib_trainer.host.forge.inspect import dense_shape
from lib_trainer.models.families import SDXL
from lib_trainer.models.layers import unet_layers
from tests.fakes.forge_room import ForgeRoom


def test_sdxl_has_788_layers_and_forge_knows_each(forge: ForgeRoom) -> None:
    """Forge's own class with SDXL's measures, on the meta device: ten gigabytes of weights are not needed for names."""
    from backend.nn.unet import IntegratedUNet2DConditionModel
    from backend.operations import using_forge_operations
    from backend.patcher.lora import load_lora, model_lora_keys_unet

    measures = {
        "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10], "context_dim": 2048, "num_head_channels": 64,
        "use_spatial_transformer": True, "use_linear_in_transformer": True, "num_classes": "sequential",
        "adm_in_channels": 2816,
    }  # fmt: skip
    with torch.device("meta"), using_forge_operations(device="meta", dtype=torch.float16):
        unet = IntegratedUNet2DConditionModel(**measures)
        for module in unet.modules():
            if hasattr(module, "dummy"):
                module.weight = torch.nn.Parameter(torch.empty(module.out_features, module.in_features))
    # As Forge's loader notes them.
    unet._internal_dict = measures
    root = torch.nn.Module()
    root.diffusion_model, root.config = unet, SimpleNamespace(huggingface_repo="stable-diffusion-xl")
    layers = unet_layers(unet, SDXL, dense_shape)
    assert len(layers) == 788
    names = {f"{layer.name}.{key}": torch.zeros(1) for layer in layers for key in ("hada_w1_a", "hada_w1_b", "alpha")}
    names |= {f"{layer.name}.{key}": torch.zeros(1) for layer in layers for key in ("hada_w2_a", "hada_w2_b")}
    patches, rest = load_lora(names, model_lora_keys_unet(root, {}))
    assert rest == {} and len(patches) == 788

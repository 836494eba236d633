"""Full-size models with the face recipe: as many layers as kohya + LyCORIS adapt, and all of them known to Forge."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from lib_trainer.adapter.attach import new_adapter
from lib_trainer.families import SDXL
from lib_trainer.host import webui
from lib_trainer.host.forge_model import dense_shape
from lib_trainer.recipes import load_recipe, presets
from tests.fakes.forge_room import ForgeRoom
from tests.host.helpers import write_adapter

FACE = load_recipe(presets()["loha_face_config_8gb"]).recipe.adapter
full_sd15 = pytest.mark.skipif(
    os.environ["TRAIN_LORA_INSIDE_FORGE"] != "sd15.safetensors", reason="only a full SD 1.5 has all the layers"
)


@full_sd15
class TestFullSize:
    def test_sd15_has_282_layers_and_1514_tensors_and_forge_knows_each(self, forge: ForgeRoom) -> None:
        from backend.patcher.lora import load_lora, model_lora_keys_unet

        def work() -> tuple[int, int]:
            with forge.host.open_model() as model:
                layers = model.adaptable_layers()
                adapter = new_adapter(layers, FACE, 0)
            path = write_adapter(forge.host.lora_dir / "face.safetensors", adapter)
            forge.host.lora_changed(path)
            tensors = load_file(path)
            _, rest = load_lora(tensors, model_lora_keys_unet(forge.engine.forge_objects.unet.model, {}))
            assert rest == {}
            forge.host.generate(forge.request("a photo <lora:face:1>"))
            (patches,) = forge.engine.forge_objects.unet.lora_patches.values()
            assert len(patches) == len(layers)
            return len(layers), len(tensors)

        assert forge.run(work) == (282, 1514)


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
        unet = IntegratedUNet2DConditionModel(**{k: list(v) if isinstance(v, list) else v for k, v in measures.items()})
        for module in unet.modules():
            if hasattr(module, "dummy"):
                module.weight = torch.nn.Parameter(torch.empty(module.out_features, module.in_features))
    unet.config = measures
    root = torch.nn.Module()
    root.diffusion_model, root.config = unet, SimpleNamespace(huggingface_repo="stable-diffusion-xl")
    layers = webui.unet_layers(unet, SDXL, dense_shape)
    assert len(layers) == 788
    names = {f"{layer.name}.{key}": torch.zeros(1) for layer in layers for key in ("hada_w1_a", "hada_w1_b", "alpha")}
    names |= {f"{layer.name}.{key}": torch.zeros(1) for layer in layers for key in ("hada_w2_a", "hada_w2_b")}
    patches, rest = load_lora(names, model_lora_keys_unet(root, {}))
    assert rest == {} and len(patches) == 788

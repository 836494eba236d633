"""The plan counts exactly the parameters that a run attaches, whatever the recipe leaves out or changes by layer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.simulation.unet import simulated_unet
from lib_trainer.adapter.attach import new_adapter
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.memory.estimate import Savings, predict
from lib_trainer.memory.layer_cost import ModuleShape
from lib_trainer.memory.text_blocks import text_encoder_blocks
from lib_trainer.models.base import Layer
from lib_trainer.models.families import SD1, SDXL, Family, UNetShape
from lib_trainer.models.layers import text_encoder_layers
from tests.memory.plans import work_of

# As many blocks as the real ones, with narrow layers.
FAMILIES = {
    "sd1": replace(SD1, shape=UNetShape((32, 64, 64, 64), 2, (1, 1, 1, 0), 1, 48, (4, 4, 4, 4))),
    "sdxl": replace(
        SDXL, shape=UNetShape((32, 32, 64), 2, (0, 1, 2), 2, 48, (2, 2, 2), linear_projection=True, pooled_dim=96)
    ),
}
BLOCKS = {"sd1": 25, "sdxl": 23}
RECIPES: dict[str, dict[str, Any]] = {
    "by name": {"network_reg_dims": "attn2_to_[kv]=3, ff_net=0, _blocks_1=2", "network_reg_lrs": "attn1_to_q=0"},
    "preset": {"lycoris_preset": "attn-mlp", "algo": "loha"},
    "convolutions alone": {"lycoris_preset": "unet-convblock-only", "dora_wd": True},
    "block dims": {
        "algo": "lokr",
        "factor": 4,
        "block_dims": [1 + n % 3 for n in range(25)],
        "conv_block_dims": [2] * 25,
    },
    "norms": {"train_norm": True, "lycoris_preset": "unet-convblock-only", "network_reg_dims": "_blocks_1=0"},
    "block weights": {"down_lr_weight": "0,0,1", "mid_lr_weight": "0", "up_lr_weight": "zeros", "dora_wd": True},
}


def read_shape(layer: Layer, like: torch.Tensor) -> tuple[torch.Tensor, None]:
    return torch.ones(layer.shape), None


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def layers(family: Family) -> list[Layer]:
    with simulated_unet(family.shape, torch.float32) as model:
        return [*model.adaptable_layers(), *model.norm_layers()]


@pytest.mark.parametrize("recipe", RECIPES)
def test_as_many_parameters_are_planned_as_attached(family: Family, layers: list[Layer], recipe: str) -> None:
    values = {
        name: ",".join(map(str, value[: BLOCKS[family.key]])) if isinstance(value, list) else value
        for name, value in RECIPES[recipe].items()
    }
    config = replace(AdapterConfig(algo="locon", network_dim=4, conv_dim=2), **values)
    attached = new_adapter(layers, config, 0, read_shape)
    work = work_of(family, 64, config, compute=torch.float32)
    planned = predict(work, Savings(0, False, False, 0.0, "AdamW", 1)).adapter
    assert planned == sum(parameter.nbytes for parameter in attached.parameters())
    # The recipe does leave something out, or differs from the plain one.
    plain = predict(
        work_of(family, 64, AdapterConfig(algo="locon", network_dim=4, conv_dim=2)),
        Savings(0, False, False, 0.0, "AdamW", 1),
    )
    assert planned != plain.adapter


def test_layers_and_ranks_of_a_continued_lora_are_counted(family: Family, layers: list[Layer]) -> None:
    uneven = {"network_reg_dims": "attn2_to_[kv]=3, ff_net=0", "train_norm": True, "dora_wd": True}
    config = replace(AdapterConfig(algo="loha", network_dim=4, conv_dim=2, use_tucker=True), **uneven)
    attached = new_adapter(layers, config, 0, read_shape)
    shapes = tuple((name, ModuleShape.of(module)) for name, module in attached.layers.items())
    plain = work_of(family, 64, AdapterConfig(algo="locon", network_dim=64), compute=torch.float32)
    savings = Savings(0, False, False, 0.0, "AdamW", 1)
    planned = predict(replace(plain, continued=shapes), savings)
    assert planned.adapter == sum(parameter.nbytes for parameter in attached.parameters())
    # The rest as for a recipe of the same ranks.
    assert planned == predict(work_of(family, 64, config, compute=torch.float32), savings)


def test_text_encoders_are_named_as_in_files() -> None:
    """SDXL's first encoder is that of SD 1.x; the second differs in size alone."""
    (width, count), _ = SDXL.text_encoders
    with torch.device("meta"):
        encoder = CLIPTextModel(
            CLIPTextConfig(
                hidden_size=width, intermediate_size=4 * width, num_hidden_layers=count, num_attention_heads=12
            )
        )

    def shape_of(module: nn.Module) -> tuple[int, ...]:
        return tuple(module.weight.shape) if isinstance(module, nn.Linear) else ()

    for family, prefix in ((SD1, "lora_te_"), (SDXL, "lora_te1_")):
        sites = [site for block in text_encoder_blocks(family) for site in block.sites]
        planned = [(site.name, site.operation.shape) for site in sites if site.name.startswith(prefix)]
        found = text_encoder_layers(encoder, prefix, shape_of)
        assert sorted(planned) == sorted((layer.name, layer.shape) for layer in found)

"""T-LoRA: which ranks act on which picture, and that a whole step learns so."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lib_trainer.adapter.attach import attached, new_adapter
from lib_trainer.config.recipe import AdapterConfig
from tests.adapter.layers import OPERATIONS, as_layer, as_module, read_plain
from tests.config.test_recipe import problems
from tests.training.small import one_layer_model, recipe_of, train

CONFIG = AdapterConfig(algo="locon", network_dim=8, conv_dim=8, tlora_min_rank=2)


@pytest.mark.parametrize("name", ["linear", "3x3"])
def test_each_picture_has_the_ranks_of_its_own_timestep(name: str) -> None:
    torch.manual_seed(0)
    operation, module = OPERATIONS[name], as_module(OPERATIONS[name])
    adapter = new_adapter([layer := as_layer("lora_unet_x", module, operation)], CONFIG, 0)
    for parameter in adapter.parameters():
        parameter.data.normal_()
    x = torch.randn((3, 36, 6, 6) if operation.is_conv else (3, 5, 36))
    factors = adapter.layers["lora_unet_x"]
    up, down = factors.up.flatten(1), factors.down.flatten(1) * factors.scale
    # floor((1000 − t) / 1000 · (8 − 2)) + 2 ranks.
    counts, timesteps = (8, 5, 2), torch.tensor([0, 500, 999])
    with attached(adapter, [layer], read_plain), torch.no_grad():
        with adapter.masked_ranks(timesteps, CONFIG):
            found = module(x)
        whole = module(x)
    for picture, count in enumerate(counts):
        weight = module.weight + (up[:, :count] @ down[:count]).reshape(operation.shape)
        alone, bias = x[picture : picture + 1], module.bias
        wanted = F.conv2d(alone, weight, bias, padding=1) if operation.is_conv else F.linear(alone, weight, bias)
        torch.testing.assert_close(found[picture : picture + 1], wanted.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[:1], whole[:1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found[2], whole[2])


def test_the_masks_are_lycoris_own() -> None:
    tlora = pytest.importorskip("lycoris.modules.tlora")
    adapter = new_adapter(one_layer_model().layers, CONFIG, 0)
    config = AdapterConfig(algo="locon", conv_dim=8, tlora_min_rank=3, tlora_alpha=1.7)
    timesteps = torch.tensor([0, 1, 250, 499, 750, 999])
    with adapter.masked_ranks(timesteps, config):
        ours = adapter.layers["lora_unet_conv"].rank_mask.clone()
    theirs = torch.cat([tlora.compute_timestep_mask(int(t), 1000, 8, 3, 1.7) for t in timesteps])
    assert torch.equal(ours, theirs)


def test_ranks_above_the_least_learn_nothing_from_noise() -> None:
    learned = {}
    for name, least, low in (("noisy", 1, 990), ("off", 0, 990)):
        recipe = recipe_of(tlora_min_rank=least, min_timestep=low, max_timestep=1000, conv_dim=3)
        adapter, _, _ = train(recipe)
        learned[name] = adapter.layers["lora_unet_conv"].up.flatten(1).abs().amax(0) > 0
    assert learned["noisy"].tolist() == [True, False, False] and learned["off"].all()


def test_it_goes_with_locon_alone() -> None:
    assert "only LoCon" in problems(algo="loha", tlora_min_rank=1)["tlora_min_rank"]
    assert "DoRA" in problems(algo="locon", dora_wd=True, tlora_min_rank=1)["tlora_min_rank"]
